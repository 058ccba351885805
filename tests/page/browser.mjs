// Chromium with an empty profile, and a page that records errors: messages on the console,
// violations of the content security policy, and requests to other servers.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

/** The modules that `make page-test` installs. */
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
  // playwright-core has no browser of its own and does not search the PATH.
  const places = (process.env.PATH ?? "").split(":");
  const name = process.env.CHROMIUM ?? "chromium";
  const executablePath = [name, ...places.map((place) => join(place, name))].find(existsSync);
  return chromium.launch({ executablePath, args: FLAGS });
}

/** A page for `url`, and the list of its errors. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...options });
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => {
    // Failed requests to a coordinator that the test has killed are expected.
    if (message.type() === "error" && !message.text().includes("ERR_")) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) errors.push(`request to ${request.url()}`);
  });
  if (process.env.PAGE_FILES) await fromDisk(page);
  return { page, errors, context };
}

/** Serves the files of the page from a folder instead of those that were compiled in. */
async function fromDisk(page) {
  await page.route(/\/(page\.css|\w+\.js)?$/, async (route) => {
    const name = new URL(route.request().url()).pathname.slice(1) || "index.html";
    await route.fulfill({ path: join(process.env.PAGE_FILES, name) });
  });
}
