"""The same recipe, tuned: images decoded once into shared memory (on a GPU: kept in its memory),
channels_last, bf16 autocast, fused Adam, DDP without buffer broadcasts or gradient copies, no loss
read back before the end of an epoch, `torch.compile` on request.

A single rank runs without torchrun and without DDP.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import torch
import torch.distributed as dist
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

import shared


class Cache:
    """All images as bytes, [n, S·S·3], decoded by all threads of all ranks."""

    def __init__(self, data, args, rank, world):
        self.size, self.paths = args.size, data.paths
        # The name is unique: a run has a folder of its own.
        self.file = f"/dev/shm/bench-{args.out.parent.name}-{args.out.name}-{os.getppid()}"
        length = args.size * args.size * 3
        if world > 1:
            dist.barrier()
        self.rows = torch.from_file(self.file, shared=True, size=len(self.paths) * length, dtype=torch.uint8)
        self.rows = self.rows.view(-1, length)
        self.written = self.rows.numpy()
        self.pool = ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // world))
        self.jobs = self.pool.map(self.decode, range(rank, len(self.paths), world))

    def decode(self, index):
        with Image.open(self.paths[index]) as image:
            image = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        self.written[index] = numpy.asarray(image).reshape(-1)

    def finish(self, rank, world, device, labels):
        for _ in self.jobs:
            pass
        self.pool.shutdown()
        if world > 1:
            dist.barrier()
        if rank == 0:
            os.unlink(self.file)
        self.rows, self.labels = self.rows.to(device), torch.tensor(labels, device=device)
        # (x / 255 - mean) / deviation for whole rows, which vectorises.
        repeat = self.size * self.size
        scale = torch.tensor([1 / (255 * each) for each in shared.DEVIATION])
        shift = torch.tensor([-mean / each for mean, each in zip(shared.MEAN, shared.DEVIATION)])
        self.scale, self.shift = scale.repeat(repeat).to(device), shift.repeat(repeat).to(device)
        self.device = device

    def batch(self, indices):
        indices = torch.tensor(indices, device=self.device)
        rows = torch.addcmul(self.shift, self.rows[indices].float(), self.scale)
        images = rows.view(-1, self.size, self.size, 3).permute(0, 3, 1, 2)  # This layout is channels_last.
        return images, self.labels[indices]


def computes_in_bf16(cuda):
    if cuda:
        return torch.cuda.get_device_capability() >= (8, 0)
    with open("/proc/cpuinfo") as file:
        flags = file.read()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def average_batch_norm(model, world):
    """One all-reduce of all running statistics before validation, instead of one in each step."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    flat = torch.cat([each.reshape(-1) for each in statistics])
    dist.all_reduce(flat)
    for target, mean in zip(statistics, (flat / world).split([each.numel() for each in statistics])):
        target.copy_(mean.view_as(target))


def main():
    args = shared.arguments()
    cuda = args.device == "cuda"
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    report = shared.Report(args, rank)
    data = shared.Images(args, rank, world)
    cache = Cache(data, args, rank, world)

    model = shared.network(args, len(data.classes)).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(shared.groups(model, args.rates), fused=True)
    step = torch.compile(model, mode="reduce-overhead" if cuda and world == 1 else None) if args.compile else model
    if world > 1:
        step = DistributedDataParallel(step, device_ids=[device.index] if cuda else None,
                                       gradient_as_bucket_view=True, broadcast_buffers=False, static_graph=True)
    criterion = torch.nn.CrossEntropyLoss()
    autocast = torch.autocast(args.device, torch.bfloat16, enabled=computes_in_bf16(cuda))
    stopping = shared.EarlyStopping(args.patience)
    cache.finish(rank, world, device, data.labels)

    for epoch in range(1, args.epochs + 1):
        began = time.monotonic()
        model.train()
        sums = torch.zeros(3, dtype=torch.float64, device=device)
        for indices in data.steps(epoch):
            images, labels = cache.batch(indices)
            with autocast:
                loss = criterion(step(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            sums[0] += loss.detach() * len(indices)
            report.step(device)
        shared.synchronize(device)
        trained = time.monotonic()

        model.eval()
        with torch.inference_mode(), autocast:
            if world > 1:
                average_batch_norm(model, world)
            for indices in data.validation_batches(256 if cuda else 64):
                images, labels = cache.batch(indices)
                outputs = model(images)
                sums[1] += criterion(outputs, labels) * len(indices)
                sums[2] += (outputs.argmax(1) == labels).sum()
        if world > 1:
            dist.all_reduce(sums)
        total, losses, correct = sums.tolist()
        validated = time.monotonic()

        validation_loss = losses / len(data.validation)
        if stopping.better(validation_loss) and rank == 0:
            torch.save(model.state_dict(), args.out / "best.pth")
        report.write(epoch=epoch, train_seconds=trained - began, validation_seconds=validated - trained,
                     seconds=time.monotonic() - began, train_loss=total / len(data.train),
                     validation_loss=validation_loss, accuracy=correct / len(data.validation))
        if stopping.stop():
            break
    if world > 1:
        dist.destroy_process_group()
    shared.leave()


if __name__ == "__main__":
    main()
