"""The notebook's recipe as users of PyTorch write it: DDP with torchrun, a DataLoader with workers,
fp32, torchvision's transforms. It is not tuned, and not slowed down.
"""

import os
import time

import torch
import torch.distributed as dist
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import shared


class Folder(Dataset):
    def __init__(self, images, size):
        self.images = images
        self.transform = transforms.Compose([
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize(shared.MEAN, shared.DEVIATION),
        ])

    def __len__(self):
        return len(self.images.paths)

    def __getitem__(self, index):
        with Image.open(self.images.paths[index]) as image:
            return self.transform(image.convert("RGB")), self.images.labels[index]


def main():
    args = shared.arguments()
    cuda = args.device == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    report = shared.Report(args, rank)
    data = shared.Images(args, rank, world)
    dataset = Folder(data, args.size)
    model = shared.network(args, len(data.classes)).to(device)
    model = DistributedDataParallel(model, device_ids=[device.index] if cuda else None)
    optimizer = torch.optim.Adam(shared.groups(model.module, args.rates))
    criterion = torch.nn.CrossEntropyLoss()
    stopping = shared.EarlyStopping(args.patience)

    def loader(batches):
        return DataLoader(dataset, batch_sampler=batches, num_workers=2, pin_memory=cuda)

    for epoch in range(1, args.epochs + 1):
        began = time.monotonic()
        model.train()
        total = 0.0
        for images, labels in loader(data.steps(epoch)):
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            report.step(device)
        trained = time.monotonic()

        model.eval()
        losses, correct = 0.0, 0
        with torch.no_grad():
            for images, labels in loader(data.validation_batches(64)):
                images, labels = images.to(device), labels.to(device)
                # Not through DDP: ranks may have different numbers of batches.
                outputs = model.module(images)
                losses += criterion(outputs, labels).item() * len(labels)
                correct += (outputs.argmax(1) == labels).sum().item()
        sums = torch.tensor([total, losses, correct], dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        total, losses, correct = sums.tolist()
        validated = time.monotonic()

        validation_loss = losses / len(data.validation)
        if stopping.better(validation_loss) and rank == 0:
            torch.save(model.module.state_dict(), args.out / "best.pth")
        report.write(epoch=epoch, train_seconds=trained - began, validation_seconds=validated - trained,
                     seconds=time.monotonic() - began, train_loss=total / len(data.train),
                     validation_loss=validation_loss, accuracy=correct / len(data.validation))
        if stopping.stop():
            break
    dist.destroy_process_group()
    shared.leave()


if __name__ == "__main__":
    main()
