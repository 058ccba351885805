// Chromium on an empty profile, with a page that writes down what must not happen: errors on the
// console, refusals by the policy, and requests that leave the coordinator.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** Modules from the folder that `make page-test` fills. */
export const modules = createRequire(join(process.env.PAGE_TEST_MODULES ?? "", "node_modules/"));
const { chromium } = modules("playwright-core");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function launch() {
  // playwright-core brings no browser of its own and looks for none on the PATH.
  const places = (process.env.PATH ?? "").split(":");
  const name = process.env.CHROMIUM ?? "chromium";
  const executablePath = [name, ...places.map((place) => join(place, name))].find(existsSync);
  return chromium.launch({ executablePath, args: FLAGS });
}

/** A page at `url`, and the list of what went wrong on it. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => {
    // That a coordinator which was killed does not answer is part of the test.
    if (message.type() === "error" && !message.text().includes("ERR_")) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) wrong.push(`asked ${request.url()}`);
  });
  if (process.env.PAGE_FILES) await fromDisk(page);
  return { page, wrong, context };
}

/** While the page is worked on: its files as they are, and not as they were built in. */
async function fromDisk(page) {
  await page.route(/\/(page\.css|\w+\.js)?$/, async (route) => {
    const name = new URL(route.request().url()).pathname.slice(1) || "index.html";
    await route.fulfill({ path: join(process.env.PAGE_FILES, name) });
  });
}
