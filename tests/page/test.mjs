// The coordinator's page in a browser during a real run: values change, the loss of a worker and of
// the coordinator are shown, no other server gets a request, all controls are reachable by keyboard,
// and axe finds no accessibility violation. A screenshot of each state is saved.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { launch, modules, open } from "./browser.mjs";
import { Run, eventually } from "./run.mjs";
import { HOSTILE, states } from "./states.mjs";

const programs = { coordinator: process.env.COORDINATOR, worker: process.env.WORKER };
const screenshots = process.env.PAGE_TEST_SCREENSHOTS;
const PHONE = { width: 390, height: 844 };
mkdirSync(screenshots, { recursive: true });

const run = new Run();
const browser = await launch();
try {
  await run.start(programs, ["--metrics-linger=600", "--epochs=6"]);
  const { page, errors } = await open(browser, run.url);
  await page.goto(run.url);
  const text = (id) => page.locator(`#${id}`).textContent();
  const shot = (name, from = page) => from.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });

  await step("values change while the run trains", async () => {
    await eventually("live", async () => (await text("link")) === "live");
    await eventually("training", async () => (await text("state")) === "Training");
    const first = await text("figures");
    await eventually("another value", async () => (await text("figures")) !== first);
    await eventually("an epoch", async () => (await page.locator("#history tbody tr").count()) >= 1);
    assert.match(await text("curves-words"), /1 epoch done/);
    assert.equal(await page.locator("#workers tbody tr").count(), 2);
    assert.match(await page.locator("#workers tbody tr").first().textContent(), /0.*cpu.*healthy.*ago/);
    assert.ok((await page.locator("#loss path.line").count()) >= 1);
    assert.match(await text("rates"), /fc/);
  });

  await step("the loss of a worker and the recovery are shown", async () => {
    process.kill(run.workers()[0], "SIGKILL");
    await eventually("the loss", async () => /Lost.*rank/.test(await text("events")));
    await eventually("the recovery", async () => /Recovered in /.test(await text("events")));
    await eventually("training again", async () => (await text("state")) === "Training");
  });

  await step("the loss of the coordinator is shown, and the resumed run has the earlier curves", async () => {
    await eventually("two epochs", async () => (await page.locator("#history tbody tr").count()) >= 2);
    const lines = await page.locator("#history tbody tr").count();
    await run.kill("SIGKILL");
    await eventually("the loss of the coordinator", async () => /is unreachable since/.test(await text("link")));
    assert.equal(await page.locator("#history tbody tr").count(), lines, "the last state stays visible");
    await shot("gone");
    await run.start(programs, ["--metrics-linger=600"]);
    await eventually("live", async () => (await text("link")) === "live");
    assert.ok((await page.locator("#history tbody tr").count()) >= lines, "the curves have the earlier epochs");
    assert.match(await text("events"), /Resumed/);
    await eventually("training", async () => (await text("state")) === "Training");
  });

  await step("the keyboard reaches all controls in reading order", async () => {
    await page.evaluate(() => document.activeElement.blur());
    const reached = [];
    for (let presses = 0; presses < 8; presses += 1) {
      await page.keyboard.press("Tab");
      reached.push(
        await page.evaluate(() => {
          const node = document.activeElement;
          const outline = getComputedStyle(node).outlineStyle;
          return `${node.getAttribute("aria-label") ?? node.textContent.trim()}${outline === "none" ? " (no outline)" : ""}`;
        }),
      );
    }
    assert.deepEqual(reached.slice(0, 6), [
      "Skip to the run",
      "All epochs as a table",
      "All workers",
      "All events, newest first",
      "status",
      "metrics",
    ]);
    await page.evaluate(() => document.activeElement.blur());
  });

  await step("layout and accessibility are right, in light mode, in dark mode, and on a phone", async () => {
    await check(page, "light");
    await page.emulateMedia({ colorScheme: "dark" });
    await check(page, "dark");
    await page.setViewportSize(PHONE);
    await check(page, "phone-dark");
    await page.emulateMedia({ colorScheme: "light" });
    await page.locator("summary").click();
    await check(page, "phone");
    await page.locator("summary").click();
    await page.setViewportSize({ width: 1180, height: 900 });
  });

  const real = await run.status();
  for (const [name, status] of Object.entries(states(real))) {
    await step(`a run that is ${name}`, async () => {
      const other = await open(browser, run.url);
      await other.page.route("**/status/stream", (route) =>
        route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(status)}\n\n` }),
      );
      await other.page.goto(run.url);
      await eventually("the state", async () => (await other.page.locator("#state").textContent()) !== "No status from the coordinator yet");
      if (name === "hostile") {
        assert.equal(await other.page.locator("#workers tbody td").nth(1).textContent(), HOSTILE);
        assert.equal(await other.page.locator("script").count(), 1);
        assert.notEqual(await other.page.title(), "owned");
      }
      await check(other.page, name);
      await other.page.setViewportSize(PHONE);
      await check(other.page, `${name}-phone`);
      assert.deepEqual(other.errors, []);
      await other.context.close();
    });
  }

  await step("the result is shown with its predictions, and stays when the coordinator has exited", async () => {
    await eventually("the end", async () => (await text("link")) === "run ended", 400_000);
    assert.equal(await text("state"), "Finished");
    await page.locator("#predictions img").waitFor();
    assert.ok((await page.locator("#predictions img").evaluate((image) => image.naturalWidth)) > 100);
    await check(page, "finished");
    await run.kill("SIGINT");
    await eventually("the exit of the coordinator", async () => /has ended/.test(await text("link")));
    assert.equal(await text("state"), "Finished");
  });

  assert.deepEqual(errors, [], "errors of the page");
  console.log(`ok; the screenshots are in ${screenshots}`);

  /** Takes a screenshot; checks that nothing is wider than the window, and that axe finds nothing. */
  async function check(page, name) {
    await new Promise((resume) => setTimeout(resume, 300));
    await shot(name, page);
    const surplus = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(surplus <= 0, `${name} is ${surplus} pixels too wide`);
    // Not as a script element, which the content security policy of the page refuses.
    await page.evaluate(modules("axe-core").source);
    const { violations } = await page.evaluate(() => window.axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(found, [], name);
  }
} catch (error) {
  console.error(run.output);
  throw error;
} finally {
  await browser.close();
  run.stop();
}

async function step(what, check) {
  await check();
  console.log(`  ${what}`);
}
