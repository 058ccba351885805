// A real run for the test: a coordinator that starts two workers on the demo set. `stop` ends all
// of its processes.

import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TIMEOUT = 240_000;

/** Waits until `holds` returns a true value, and returns that. */
export async function eventually(what, holds, timeout = TIMEOUT) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`timed out waiting for ${what}`);
    await new Promise((resume) => setTimeout(resume, 100));
  }
}

export class Run {
  output = "";
  #scratch = mkdtempSync(join(tmpdir(), "page-test-"));
  #child = null;
  #address = null;

  /** Starts the run, or resumes it with the same addresses. */
  async start(programs, flags = []) {
    const resumed = this.#address !== null;
    const place = ["--metrics-listen", this.#address ?? "127.0.0.1:0"];
    const what = resumed
      ? ["--resume", this.directory]
      : ["--workers=2", "--data=demo", "--run-dir", this.directory, "--threads-per-worker=1"];
    const worker = ["--worker-binary", programs.worker];
    this.output = "";
    const child = spawn(programs.coordinator, [...what, ...place, ...worker, ...flags], {
      cwd: this.#scratch,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (text) => (this.output += text));
    }
    this.url = await eventually("an address", () => {
      if (child.exitCode !== null) throw new Error(`the coordinator exited:\n${this.output}`);
      return this.output.match(/page: +(http:\S+)/)?.[1];
    });
    this.#address = new URL(this.url).host;
  }

  get directory() {
    return join(this.#scratch, "run");
  }

  async status() {
    return (await fetch(`${this.url}status`)).json();
  }

  /** The process ids of its workers. */
  workers() {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          // The state and the parent follow the name, which may contain any character.
          const [, parent] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
          return Number(parent) === this.#child.pid;
        } catch {
          return false;
        }
      })
      .map(Number);
  }

  kill(signal) {
    this.#child.kill(signal);
    return this.ended();
  }

  ended() {
    return eventually("the coordinator to exit", () => this.#child.exitCode !== null || this.#child.signalCode !== null);
  }

  /** Kills all processes and removes all files. */
  stop() {
    if (this.#child?.exitCode === null && this.#child.signalCode === null) {
      const workers = this.workers();
      this.#child.kill("SIGKILL");
      for (const pid of workers) process.kill(pid, "SIGKILL");
    }
    rmSync(this.#scratch, { recursive: true, force: true });
  }
}
