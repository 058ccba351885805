// Takes a screenshot of each page that standard input lists, and prints what is wrong with it: a
// panel that is not there, or one with an error.

import { join } from "node:path";
import { text } from "node:stream/consumers";

import { launch } from "../page/browser.mjs";

const { headers, folder, pages } = JSON.parse(await text(process.stdin));
const TIMEOUT = 60_000;

/** What is wrong with a page. */
async function wrong(page, { url, titles }) {
  await page.goto(url, { timeout: TIMEOUT });
  const missing = () => page.evaluate((all) => {
    const shown = document.body.innerText.toLowerCase();
    return all.filter((title) => !shown.includes(title.toLowerCase()));
  }, titles);
  const deadline = Date.now() + TIMEOUT;
  while ((await missing()).length && Date.now() < deadline) await page.waitForTimeout(250);
  await page.waitForLoadState("networkidle", { timeout: TIMEOUT });
  // The curves are drawn after the last answer.
  await page.waitForTimeout(2_000);
  const failed = await page.locator('[data-testid="data-testid Panel status error"]').count();
  return [
    ...(await missing()).map((title) => `the page has no panel "${title}"`),
    ...(failed ? [`${failed} panels have an error`] : []),
  ];
}

const browser = await launch();
try {
  for (const each of pages) {
    const viewport = { width: 1600, height: each.height };
    const context = await browser.newContext({ viewport, extraHTTPHeaders: headers });
    const page = await context.newPage();
    const found = await wrong(page, each);
    await page.screenshot({ path: join(folder, `${each.name}.png`) });
    for (const line of found) console.log(`${each.name}: ${line}`);
    await context.close();
  }
} finally {
  await browser.close();
}
