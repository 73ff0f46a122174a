import assert from "node:assert/strict";
import { test } from "node:test";
import { browse, KEYS, pages } from "./browser.mjs";
import { counts, ELEMENT, find, inside, isTrue, opened, page, token } from "./element.mjs";
import { Home, relay, until } from "./support.mjs";

test("a person sees the badge, opens the list, reads, archives, and undoes it", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "First", url: "/first" });
  await server.notify("anna", { title: "Second", body: "with a body" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "2"`));
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 2 && $(".panel").matches(":popover-open")`));
  assert.equal(await browser.run(inside(`$("li .title").textContent`)), "Second");
  await browser.until("both are seen", `${isTrue(`$(".badge").hidden`)}`);
  await until("the server knows it", async () => (await counts(server)).unseen === 0);
  assert.equal((await counts(server)).unread, 2);

  // What arrives while the list is open is on the screen, and therefore seen.
  await server.notify("anna", { title: "Third" });
  await browser.until("the third", isTrue(`$$("li").length === 3`));
  await until("it is seen", async () => (await counts(server)).unseen === 0);

  // A click on one without a link marks it as read, and the button marks it as unread again, and as read.
  await browser.click(inside(`$("li .title")`));
  await until("it is read", async () => (await counts(server)).unread === 2);
  await browser.until("it shows", isTrue(`!$("li").classList.contains("unread")`));
  for (const unread of [3, 2]) {
    await browser.click(inside(`$("li .tools button")`));
    await until("it is changed", async () => (await counts(server)).unread === unread);
    await browser.until("it shows", isTrue(`$("li").classList.contains("unread") === ${unread === 3}`));
  }
  await browser.click(inside(`$("li .archive")`));
  await browser.until("it is gone", isTrue(`$$("li").length === 2 && !$(".done").hidden`));
  await browser.click(inside(`$(".done button")`));
  await browser.until("it is back", isTrue(`$$("li").length === 3 && $("li .title").textContent === "Third"`));
  await browser.click(find(".mark-all"));
  await until("all are read", async () => (await counts(server)).unread === 0);
  await browser.until("the button is gone", isTrue(`$(".mark-all").hidden`));

  // A click beside the list closes it.
  await browser.click(`() => document.body`);
  await browser.until("it is closed", isTrue(`!$(".panel").matches(":popover-open")`));
});

test("the keyboard alone is enough", async (t) => {
  const { server, app, browser } = await opened(t);
  for (const title of ["one", "two", "three"]) await server.notify("anna", { title, url: `#${title}` });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "3"`));
  assert.equal(await browser.run(inside(`$(".bell").getAttribute("aria-label")`)), "Notifications: 3 new");
  await browser.type(KEYS.tab, KEYS.enter);
  await browser.until("the list is open", isTrue(`$(".panel").matches(":popover-open") && $(".bell").ariaExpanded === "true"`));
  const focused = (text) => isTrue(`root.activeElement?.closest("li")?.innerText.includes("${text}")`);
  await browser.type(KEYS.tab, KEYS.tab);
  await browser.until("the first row has the focus", focused("three"));
  await browser.type(KEYS.down);
  await browser.until("the next one", focused("two"));
  await browser.type(KEYS.delete);
  await browser.until("it is archived, and the focus stays in the list", `${isTrue(`$$("li").length === 2`)}`);
  await browser.until("the one below has the focus", focused("one"));
  await browser.until("the server has replied", isTrue(`!$(".done").hidden`));
  // Behind the link and the buttons of this row, and of no other.
  await browser.type(KEYS.tab, KEYS.tab, KEYS.tab, KEYS.tab);
  await browser.until("it can be undone", isTrue(`root.activeElement?.textContent === "Undo"`));
  await browser.type(KEYS.enter);
  await browser.until("it is back, and the focus is still in the list", isTrue(`$$("li").length === 3 && root.activeElement === $(".panel")`));
  await browser.type(KEYS.end);
  await browser.until("the last row has the focus", focused("one"));
  await browser.type(KEYS.enter);
  await browser.until("the link is followed", `() => location.hash === "#one"`);
  await until("it is read", async () => (await counts(server)).unread === 2);
  await browser.run(inside(`$(".mark-all").focus()`));
  await browser.type(KEYS.enter);
  await browser.until("the focus stays in the list", isTrue(`$(".mark-all").hidden && root.activeElement === $(".panel")`));
  await browser.type(KEYS.escape);
  await browser.until("the list is closed, and the bell has the focus", isTrue(`!$(".panel").matches(":popover-open") && root.activeElement === $(".bell")`));
});

test("a screen reader says all of a row that has the focus", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "Paid", body: "It ships tomorrow." });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.type(KEYS.down);
  await browser.until("the row has the focus", isTrue(`root.activeElement === $("li")`));
  assert.equal(await browser.nameOf(find("li")), "Unread. Paid now");
  assert.equal(await browser.run(inside(`root.getElementById($("li").getAttribute("aria-describedby")).textContent`)), "It ships tomorrow.");
  assert.equal(await browser.run(inside(`getComputedStyle($("time")).visibility`)), "visible");
});

test("a page whose language is not well-formed has a list", async (t) => {
  const { server, browser } = await opened(t);
  const app = await pages(t, { "/": page(server).replace("<meta", `<html lang="en_US"><meta`) });
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$("li .title")?.textContent === "One" && $("time").title !== ""`));
});

test("who loads the last page by the keyboard is in it afterwards", async (t) => {
  const { server, app, browser } = await opened(t);
  for (let n = 1; n <= 51; n += 1) await server.notify("anna", { title: `number ${n}` });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "51"`));
  await browser.click(find(".bell"));
  await browser.until("the button", isTrue(`$$("li").length === 50 && !$(".more").hidden`));
  await browser.run(inside(`$(".more").focus()`));
  await browser.type(KEYS.enter);
  await browser.until("the oldest has the focus", isTrue(`$(".more").hidden && root.activeElement?.closest("li") === $$("li")[50]`));
});

test("a hostile payload is shown as text, and runs nothing", async (t) => {
  const { server, app, browser } = await opened(t);
  const markup = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
  const urls = ["javascript:window.hacked=1", " java\nscript:window.hacked=1", "data:text/html,<script>1</script>", "vbscript:1"];
  for (const url of urls) {
    await server.notify("anna", { title: markup, body: markup, url, icon: url, actions: [{ label: markup, url }] });
  }
  const values = [null, 1, true, [], ["x"], {}, { title: {}, body: [], url: 7, icon: {}, actions: "x" }, { actions: [null, 1, {}] }, "text"];
  for (const payload of values) await server.notify("anna", payload);
  await server.notify("anna", { title: "\u202egnp.exe", body: "x".repeat(100_000), message: 1 }, { type: markup });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "${urls.length + values.length + 1}"`));
  await browser.click(find(".bell"));
  await browser.until("all are shown", isTrue(`$$("li").length === ${urls.length + values.length + 1}`));
  for (const link of await browser.run(inside(`$$("a, img").map((found) => found.href ?? found.src)`))) assert.fail(link);
  const titles = await browser.run(inside(`$$(".title").map((title) => title.textContent)`));
  assert.equal(titles.filter((title) => title === markup).length, urls.length);
  assert.equal(await browser.run(`() => window.hacked`), null);
  const fits = await browser.run(inside(`$(".scroll").scrollWidth <= $(".scroll").clientWidth`));
  assert.ok(fits, "nothing is wider than the list");
});

test("tokens come from the application, and words say when there is none", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  let issue = () => token("anna", 600, secret);
  const args = ["--api-key", "a-key-for-this-test-0123456789", "--jwt-secret", secret];
  const attributes = `token-url="/token"`;
  const { server, app, browser } = await opened(t, { args, attributes, routes: { "/token": () => issue() } });
  const key = { authorization: "Bearer a-key-for-this-test-0123456789" };
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "hers" } }, key);
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  // Who signs in again needs no reload, and an application that fails has signed nobody out.
  for (const [reply, words] of [[401, "You are signed out"], [403, "You are signed out"], [500, "The next try follows soon"], [429, "The next try follows soon"]]) {
    issue = () => reply;
    await browser.goto(app);
    await browser.click(find(".bell"));
    await browser.until("the words", isTrue(`$(".notice").innerText.includes("${words}")`));
    assert.equal(await browser.run(inside(`$(".bell").ariaLabel`)), "Notifications", "how many there are is not known");
    issue = () => token("anna", 600, secret);
    await browser.until("the list", isTrue(`$$("li").length === 1 && $(".notice").hidden`));
  }
  issue = () => token("ben", 600, secret);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the other words", isTrue(`$(".notice").innerText.includes("not yours")`));
});

test("who signs in again while the page is open needs no reload and no click", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  let isSignedOut = false;
  let refused = 0;
  const issue = () => {
    if (isSignedOut) {
      refused += 1;
      return 401;
    }
    isSignedOut = true;
    return token("anna", 4, secret);
  };
  const key = "a-key-for-this-test-0123456789";
  const args = ["--api-key", key, "--jwt-secret", secret];
  const { server, app, browser } = await opened(t, { args, attributes: `token-url="/token"`, routes: { "/token": issue } });
  const notify = (title) => server.post("/v1/notifications", { user_id: "anna", payload: { title } }, { authorization: `Bearer ${key}` });
  await notify("before");
  await browser.goto(app);
  await browser.until("the stream", isTrue(`element.inbox?.state.status === "live" && $(".badge").textContent === "1"`));
  // Short waits: eight tokens could be refused in a second.
  await browser.run(`() => { Math.random = () => 0.01; }`);
  await browser.run(inside(`void element.open()`));
  await browser.until("the words", isTrue(`$(".notice").innerText.includes("You are signed out")`));
  const before = refused;
  await until("a few more requests for a token", () => refused >= before + 3);
  isSignedOut = false;
  await notify("after");
  await browser.until("the new one", isTrue(`element.inbox.state.status === "live" && $("li .title")?.textContent === "after" && $(".notice").hidden`));
});

/** The contrast of two colors, as the guidelines for accessibility define it. */
function contrast(...colors) {
  const luminances = colors.map((color) => {
    const [red, green, blue] = color.match(/\d+/g).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  });
  const [dark, light] = luminances.sort((one, other) => one - other);
  return (light + 0.05) / (dark + 0.05);
}

test("the list fills a narrow screen, and follows the colors of the system", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.command("Emulation.setDeviceMetricsOverride", { width: 360, height: 640, deviceScaleFactor: 2, mobile: true });
  await browser.command("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  const { width, height } = await browser.run(inside(`$(".panel").getBoundingClientRect().toJSON()`));
  assert.deepEqual([width, height], [360, 640]);
  assert.equal(await browser.run(inside(`getComputedStyle($(".panel")).backgroundColor`)), "rgb(25, 28, 35)");
  for (const theme of ["light", "dark"]) {
    await browser.run(inside(`void element.setAttribute("theme", "${theme}")`));
    const style = `getComputedStyle($(".badge"))`;
    const [color, background] = await browser.run(inside(`[${style}.color, ${style}.backgroundColor]`));
    assert.ok(contrast(color, background) >= 4.5, `${theme}: ${color} on ${background}`);
  }
  await browser.click(find(".close"));
  await browser.until("it is closed", isTrue(`!$(".panel").matches(":popover-open")`));
});

test("the page may set properties before the client is loaded, and take links over", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const key = "a-key-for-this-test-0123456789";
  const server = await new Home(t).start({ args: ["--api-key", key, "--jwt-secret", secret] });
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "Hello", url: "/there" } }, { authorization: `Bearer ${key}` });
  const app = await pages(t, {
    "/": `<!doctype html><tidings-inbox user="anna" server="${server.url}"></tidings-inbox><script>
      const element = document.querySelector("tidings-inbox");
      element.token = () => "${token("anna", 600, secret)}";
      element.labels = { notifications: "Mitteilungen" };
      element.addEventListener("tidings-open", (event) => { event.preventDefault(); window.opened = event.detail.url; });
    </script><script type="module" src="/tidings.js"></script>`,
  });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge")?.textContent === "1"`));
  await browser.click(find(".bell"));
  await browser.until("the other language", isTrue(`$("h2").textContent === "Mitteilungen" && $(".mark-all").textContent === "Mark all as read"`));
  await browser.click(find("a.title"));
  await browser.until("the page got it", `(url) => window.opened === url`, `${app}/there`);
  await browser.until("the list is closed, and it is read", isTrue(`!$(".panel").matches(":popover-open") && element.inbox.state.unread === 0`));
  await browser.run(`() => document.querySelector("tidings-inbox").setAttribute("user", "ben")`);
  await browser.until("of another user nothing is shown", isTrue(`$$("li").length === 0`));
  const element = `document.querySelector("tidings-inbox")`;
  await browser.run(`() => { window.kept = ${element}; window.kept.remove(); }`);
  await browser.run(`() => { window.kept.setAttribute("user", "anna"); document.body.append(window.kept); }`);
  await browser.until("it works again elsewhere", isTrue(`element.inbox?.state.items.length === 1`));
});

test("nothing stays of a user who signs out, and the list stays open for the next one", async (t) => {
  const { server, app, browser } = await opened(t);
  for (const title of ["one", "two"]) await server.notify("anna", { title });
  await server.notify("ben", { title: "for ben" });
  await browser.goto(app);
  const isEmpty = `$$("li").length === 0 && $(".badge").hidden && $(".mark-all").hidden && $(".done").hidden && !root.textContent.includes("two")`;
  /** What follows in the same turn, and after it. */
  const afterwards = (attribute, value) => `async () => {
    ${ELEMENT}
    if (${value === null}) element.removeAttribute("${attribute}"); else element.setAttribute("${attribute}", "${value}");
    const atOnce = ${isEmpty};
    await new Promise((resolve) => setTimeout(resolve));
    return [atOnce, ${isEmpty}];
  }`;
  const wrong = [["user", null], ["user", ".."], ["server", "ftp://nowhere"]];
  const goneWithEach = async (hers) => {
    for (const [attribute, value] of wrong) {
      await browser.until("hers", isTrue(hers));
      assert.deepEqual(await browser.run(afterwards(attribute, value)), [true, true], `${attribute} ${value}`);
      await browser.run(inside(`void (element.setAttribute("user", "anna"), element.setAttribute("server", "${server.url}"))`));
    }
  };
  await goneWithEach(`$(".badge").textContent === "2"`);
  await browser.click(find(".bell"));
  await goneWithEach(`$$("li").length === 2 && !$(".mark-all").hidden`);
  await browser.until("hers", isTrue(`$$("li").length === 2`));
  await browser.click(find("li .archive"));
  await browser.until("it can be undone", isTrue(`$$("li").length === 1 && !$(".done").hidden`));
  assert.deepEqual(await browser.run(afterwards("user", "ben")), [true, true]);
  await browser.until("his", isTrue(`$("li .title")?.textContent === "for ben"`));
  assert.ok(await browser.run(isTrue(`$(".panel").matches(":popover-open") && $(".bell").ariaExpanded === "true"`)));
  await until("it is seen", async () => (await counts(server, "ben")).unseen === 0);
  const isLoadingWithoutUser = `() => {
    const another = document.createElement("tidings-inbox");
    document.body.append(another);
    const loading = another.shadowRoot.querySelector(".skeleton").parentElement;
    another.remove();
    return !loading.hidden;
  }`;
  assert.equal(await browser.run(isLoadingWithoutUser), false);
});

test("an action of a user who has signed out tells the next one nothing", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.run(inside(`void (() => {
    const real = window.fetch;
    const { inbox } = element;
    const archive = inbox.archive.bind(inbox);
    inbox.archive = (id) => (window.archiving = archive(id));
    window.errors = 0;
    element.addEventListener("tidings-error", () => (window.errors += 1));
    window.fetch = async (url, init) => {
      if (!String(url).endsWith("/archive")) return real(url, init);
      window.isAsked = true;
      await new Promise((resolve) => (window.reply = resolve));
      return new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 });
    };
  })()`));
  await browser.click(find("li .archive"));
  await browser.until("the request", `() => window.isAsked`);
  const after = `async () => {
    ${ELEMENT}
    element.setAttribute("user", "ben");
    window.reply();
    const { status } = await window.archiving.catch((error) => error);
    await new Promise((resolve) => setTimeout(resolve));
    return [status, $(".done").hidden, window.errors];
  }`;
  assert.deepEqual(await browser.run(after), [403, true, 0]);
});

test("what arrives while the page is hidden is seen when the person comes back", async (t) => {
  const { server, app, browser } = await opened(t);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`!$(".empty").hidden`));
  const become = (state) => `() => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => "${state}" });
    document.dispatchEvent(new Event("visibilitychange"));
  }`;
  await browser.run(become("hidden"));
  await server.notify("anna", { title: "One" });
  await browser.until("the badge", isTrue(`$$("li").length === 1 && $(".badge").textContent === "1"`));
  await browser.run(become("visible"));
  await browser.until("it is seen", isTrue(`$(".badge").hidden`));
  await until("the server knows it", async () => (await counts(server)).unseen === 0);
});

test("what cannot be marked as seen is not tried again and again", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  await browser.run(`() => {
    const real = window.fetch;
    window.asked = 0;
    window.fetch = (url, init) => {
      if (!String(url).endsWith("/seen")) return real(url, init);
      window.asked += 1;
      return Promise.resolve(new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 }));
    };
  }`);
  await browser.click(find(".bell"));
  await browser.until("the badge is back", isTrue(`window.asked === 1 && !$(".badge").hidden`));
  await server.notify("anna", { title: "Two" });
  await browser.until("the next one", isTrue(`$$("li").length === 2`));
  assert.ok((await browser.run(`() => window.asked`)) <= 2);
});

/** Sends so many notifications with a link, in one request. */
const sendMany = (server, count, from = 0) =>
  server.post("/v1/notifications/batch", { notifications: Array.from({ length: count }, (_, n) => ({ user_id: "anna", payload: { title: `T${from + n}`, url: "/x" } })) });

test("what arrives makes no row while the list is closed, and touches no other row while it is open", async (t) => {
  const { server, app, browser } = await opened(t);
  await sendMany(server, 50);
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "50"`));
  await sendMany(server, 150, 50);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "99+" && element.inbox.state.items.length === 200`));
  assert.equal(await browser.run(inside(`$$("li").length`)), 0);
  await browser.click(find(".bell"));
  await browser.until("the rows", isTrue(`$$("li").length === 200 && element.inbox.state.unseen === 0`));
  assert.deepEqual(await browser.run(inside(`$$("li .title").slice(0, 2).map(({ textContent }) => textContent)`)), ["T199", "T198"]);
  // What the tabulator reaches is one row.
  await browser.run(`() => {
    const { get, set } = Object.getOwnPropertyDescriptor(HTMLElement.prototype, "tabIndex");
    window.touched = new Set();
    Object.defineProperty(HTMLElement.prototype, "tabIndex", { get, set(value) {
      const row = this.closest("li");
      if (row !== null) window.touched.add(row.dataset.id);
      set.call(this, value);
    } });
  }`);
  const { id } = await server.notify("anna", { title: "New" });
  await browser.until("the new row", isTrue(`$$("li").length === 201`));
  assert.deepEqual(await browser.run(`() => [...window.touched]`), [id]);
  assert.deepEqual(await browser.run(inside(`$$('li[tabindex="0"]').map(({ textContent }) => textContent.includes("T199"))`)), [true]);
  // The row that is reached goes, and the first one is reached.
  const second = await browser.run(inside(`$$("li")[1].dataset.id`));
  await server.post(`/v1/users/anna/notifications/${second}/archive`, {});
  await browser.until("the row is gone", isTrue(`$$("li").length === 200`));
  assert.deepEqual(await browser.run(inside(`$$('li[tabindex="0"]').map(({ dataset }) => dataset.id)`)), [id]);
});

test("while much arrives in an open list, the server is told from time to time what is seen", async (t) => {
  const { server, app, browser } = await opened(t);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`!$(".empty").hidden`));
  await browser.run(`() => {
    const real = window.fetch;
    window.told = [];
    window.fetch = async (url, init) => {
      if (!String(url).endsWith("/seen")) return real(url, init);
      window.told.push(JSON.parse(init.body).up_to);
      if (window.told.length === 1) await new Promise((resolve) => (window.release = resolve));
      return real(url, init);
    };
  }`);
  const ids = [];
  for (let n = 0; n < 20; n += 1) ids.push((await server.notify("anna", { title: `T${n}` })).id);
  await browser.until("all", isTrue(`$$("li").length === 20 && window.told.length > 0`));
  assert.equal(await browser.run(`() => window.told.length`), 1);
  await browser.run(`() => window.release()`);
  await until("the server knows it", async () => (await counts(server)).unseen === 0);
  assert.deepEqual(await browser.run(`() => window.told.slice(1)`), [ids.at(-1)]);
});

test("a person who does not want to wait for the next try has a button", async (t) => {
  const server = await new Home(t).start();
  const { url, pause } = await relay(t, server.address);
  const app = await pages(t, { "/": `<script>Math.random = () => 1e6;</script>${page({ url })}`.replace(/^(.*?)<!doctype html>/s, "<!doctype html>$1") });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`!$(".empty").hidden`));
  pause(true);
  await browser.until("the notice", isTrue(`$(".notice span").textContent.startsWith("Connecting again") && !$(".notice button").hidden`));
  pause(false);
  await server.notify("anna", { title: "One" });
  await browser.click(find(".notice button"));
  await browser.until("what was missed", isTrue(`$("li .title")?.textContent === "One" && $(".notice").hidden`));
});

test("before the first connection nothing is said of another one, and a try says that it is under way", async (t) => {
  const held = `<!doctype html><script>
    Math.random = () => 1e6;
    const real = fetch;
    window.fetch = (url, init) => !/\\/events\\b/.test(url) ? real(url, init) : new Promise((resolve, reject) => {
      window.refuse = () => reject(new TypeError("no network"));
      window.pass = () => resolve(real(url, init));
    });
  </script>`;
  const server = await new Home(t).start();
  const app = await pages(t, { "/": page(server).replace("<!doctype html>", held) });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.click(find(".bell"));
  const fails = async () => {
    await browser.until("a request", "() => window.refuse !== undefined");
    await browser.run("() => { refuse(); window.refuse = undefined; }");
    await browser.until("the words", isTrue(`$(".notice span").textContent.startsWith("Connecting. ") && $(".notice button").ariaBusy === "false"`));
  };
  const tries = async () => {
    await browser.click(find(".notice button:not([hidden])"));
    await browser.until("the try", isTrue(`$(".notice span").textContent === "Trying …" && root.activeElement.ariaBusy === "true"`));
  };
  await fails();
  await tries();
  await fails();
  await tries();
  await browser.run("() => pass()");
  await browser.until("no words", isTrue(`$(".notice").hidden`));
});

test("no try is offered where none is possible", async (t) => {
  const server = await new Home(t).start();
  const bye = `<!doctype html><script>
    Math.random = () => 1e6;
    const real = fetch;
    const frame = 'event: bye\\ndata: {"code":4100,"reason":"too many streams","reconnect_after_ms":600000}\\n\\n';
    const refused = () => new Response(frame, { headers: { "content-type": "text/event-stream" } });
    window.fetch = (url, init) => window.isFull && /\\/events\\b/.test(url) ? Promise.resolve(refused()) : real(url, init);
    window.isFull = new URLSearchParams(location.search).has("full");
  </script>`;
  const app = await pages(t, { "/": page(server).replace("<!doctype html>", bye) });
  const browser = await browse(t);
  const offersNothing = isTrue(`$(".notice span").textContent.startsWith("Connecting") && $(".notice button").hidden`);
  await browser.goto(`${app}/?full`);
  await browser.click(find(".bell"));
  await browser.until("a wait for which the server has asked", offersNothing);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`!$(".empty").hidden && element.inbox?.state.status !== "connecting"`));
  await browser.run(`() => {
    Object.defineProperty(navigator, "onLine", { value: false });
    dispatchEvent(new Event("offline"));
  }`);
  await browser.until("a browser without a network", offersNothing);
});

test("all of a notification with a link leads there", async (t) => {
  const { server, app, browser } = await opened(t);
  const actions = [{ label: "Pay", url: "#pay" }];
  await server.notify("anna", { title: "Paid", body: "one\ntwo\nthree", url: "#there", actions });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.run(inside(`void element.addEventListener("tidings-open", (event) => (window.led = event.detail.url))`));
  const points = {
    "below the buttons": inside(`(({ right, bottom }) => ({ x: right - 20, y: bottom - 5 }))($(".side").getBoundingClientRect())`),
    "beside an action": inside(`(({ right, top }) => ({ x: right + 30, y: top + 5 }))($(".action").getBoundingClientRect())`),
  };
  for (const [where, point] of Object.entries(points)) {
    await browser.run(`() => { location.hash = ""; window.led = undefined; }`);
    await browser.clickAt(await browser.run(point));
    await browser.until(`a click ${where}`, `() => location.hash === "#there" && window.led === location.href`);
  }
  await browser.click(find(".action"));
  await browser.until("the action", `() => location.hash === "#pay"`);
});

test("a link that is opened in another tab marks its notification as read", async (t) => {
  const { server, app, browser } = await opened(t);
  const actions = [{ label: "Pay", url: "#pay" }];
  for (const title of ["One", "Two"]) await server.notify("anna", { title, url: "#there", actions });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li.unread").length === 2`));
  await browser.run(inside(`void element.addEventListener("tidings-open", () => (window.isOpened = true))`));
  const middle = (row, selector) => inside(`(({ x, y, width, height }) => ({ x: x + width / 2, y: y + height / 2 }))($$("li")[${row}].querySelector("${selector}").getBoundingClientRect())`);
  await browser.clickAt(await browser.run(middle(0, ".title")), 1);
  await browser.until("the first is read", isTrue(`$$("li").map((row) => row.matches(".unread")).join() === "false,true"`));
  await browser.clickAt(await browser.run(middle(1, ".action")), 1);
  await until("both are read", async () => (await counts(server)).unread === 0);
  // Nothing else is to happen in this page.
  assert.deepEqual(await browser.run(isTrue(`[window.isOpened ?? false, location.hash, $(".panel").matches(":popover-open")]`)), [false, "", true]);
});

test("long texts fit a narrow screen, with the button that closes the list beside them", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  for (const width of [360, 320]) {
    await browser.command("Emulation.setDeviceMetricsOverride", { width, height: 640, deviceScaleFactor: 2, mobile: true });
    await browser.goto(app);
    await browser.run(inside(`void (element.labels = { notifications: "Benachrichtigungen", markAllRead: "Alle als gelesen markieren" })`));
    await browser.click(find(".bell"));
    await browser.until("the list", isTrue(`$$("li").length === 1 && !$(".mark-all").hidden`));
    const [panel, button, icon, isBeside] = await browser.run(
      inside(`[$(".panel"), $(".mark-all"), $(".mark-all svg")].map((part) => [part.scrollWidth, part.clientWidth])
        .concat($(".mark-all").getBoundingClientRect().right <= $(".close").getBoundingClientRect().left)`),
    );
    assert.deepEqual(panel, [width, width]);
    assert.equal(button[0], button[1], `${width}`);
    assert.equal(icon[1], 18, `${width}`);
    assert.ok(isBeside, `${width}`);
  }
});

test("what is set again changes nothing, and new texts leave the list open", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const key = "a-key-for-this-test-0123456789";
  const { server, app, browser } = await opened(t, { args: ["--api-key", key, "--jwt-secret", secret] });
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "hers" } }, { authorization: `Bearer ${key}` });
  await browser.goto(app);
  await browser.run(inside(`void (element.token = () => "${token("anna", 600, secret)}")`));
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.type(KEYS.down);
  await browser.until("the row has the focus", isTrue(`root.activeElement === $("li")`));
  const setAgain = inside(`(() => {
    const [inbox, row] = [element.inbox, $("li")];
    const { token } = element;
    element.token = () => token();
    element.setAttribute("user", "anna");
    element.setAttribute("server", element.getAttribute("server"));
    element.labels = { unseen: (count) => count + " neue", archive: undefined };
    return [element.inbox === inbox, root.activeElement === row, $(".bell").ariaLabel];
  })()`);
  assert.deepEqual(await browser.run(setAgain), [true, true, "Notifications: 0 neue"]);
  await browser.run(inside(`void (element.labels = { notifications: "Mitteilungen" })`));
  await browser.until("the other text", isTrue(`$("h2").textContent === "Mitteilungen" && $$("li").length === 1 && $(".panel").matches(":popover-open")`));
  assert.equal(await browser.run(inside(`$("li .archive").title`)), "Archive");
  for (const none of ["undefined", "null"]) {
    await browser.run(inside(`void (element.labels = { notifications: "Mitteilungen" }, element.labels = ${none})`));
    await browser.until("English again", isTrue(`$("h2").textContent === "Notifications" && $$("li").length === 1`));
  }
});

test("a page that sets another function at each rendering connects anew only after refused tokens", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const { app, browser } = await opened(t, { args: ["--api-key", "a-key-for-this-test-0123456789", "--jwt-secret", secret] });
  await browser.goto(app);
  // Eight tokens are refused at once.
  await browser.run(`() => { Math.random = () => 0; }`);
  const render = (text) => inside(`(() => {
    const { inbox } = element;
    element.token = () => ${JSON.stringify(text)};
    return element.inbox === inbox;
  })()`);
  const hasFailed = (code) => isTrue(`element.inbox.state.status === "failed" && element.inbox.state.error.code === "${code}"`);
  await browser.run(render(token("ben", 600, secret)));
  await browser.until("the failure", hasFailed("forbidden"));
  assert.ok(await browser.run(render(token("ben", 600, secret))), "the inbox stays as it is");
  await browser.run(inside(`void (element.token = undefined)`));
  await browser.run(render(token("anna", -600, secret)));
  await browser.until("the other failure", hasFailed("unauthorized"));
  assert.ok(!(await browser.run(render(token("anna", 600, secret)))), "there is another inbox");
  await browser.until("the stream", isTrue(`element.inbox.state.status === "live" && !element.inbox.state.isLoading`));
});

test("yesterday is the day before, and not some hours ago", async (t) => {
  const { server, app, browser } = await opened(t);
  // It is between midnight and one o'clock there.
  const hour = new Date().getUTCHours();
  const timezoneId = hour <= 12 ? `Etc/GMT+${hour}` : `Etc/GMT-${24 - hour}`;
  await browser.command("Emulation.setTimezoneOverride", { timezoneId });
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.run(`() => {
    window.now = Date.now;
    // The time of the server stays what it was.
    const { get } = Headers.prototype;
    Headers.prototype.get = function (name) { return name === "date" ? null : get.call(this, name); };
  }`);
  for (const [hours, words] of [[0, "now"], [20, "20 hr. ago"], [26, "yesterday"], [50, "2 days ago"]]) {
    await browser.run(inside(`void (Date.now = () => window.now() + ${hours} * 3_600_000, element.close())`));
    await browser.until("it is closed", isTrue(`$(".bell").ariaExpanded !== "true"`));
    await browser.run(inside(`void element.open()`));
    await browser.until(`"${words}"`, isTrue(`$("time")?.textContent === "${words}"`));
  }
});

test("how long ago it was does not depend on the clock of the browser", async (t) => {
  const { server, browser } = await opened(t);
  const behind = `<script>const now = Date.now; Date.now = () => now() - 2 * 86_400_000 - 7_200_000;</script>`;
  const app = await pages(t, { "/": page(server).replace("<script", `${behind}<script`) });
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the row", isTrue(`$("time")?.textContent === "now"`));
  await browser.run(`() => { Date.now = () => now() + 86_400_000; }`);
  // Each response says the time.
  await server.notify("anna", { title: "Two" });
  await browser.run(inside(`element.inbox.markAllRead()`));
  await browser.run(inside(`void element.close()`));
  await browser.until("it is closed", isTrue(`$(".bell").ariaExpanded !== "true"`));
  await browser.run(inside(`void element.open()`));
  await browser.until("both are new", isTrue(`$$("time").map(({ textContent }) => textContent).join() === "now,now"`));
});

test("a key that is held down archives one notification", async (t) => {
  const { server, app, browser } = await opened(t);
  for (const title of ["one", "two", "three", "four"]) await server.notify("anna", { title });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 4`));
  await browser.type(KEYS.down);
  await browser.until("the first row has the focus", isTrue(`root.activeElement === $("li")`));
  const press = (autoRepeat) => browser.command("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Delete", code: "Delete", windowsVirtualKeyCode: 46, autoRepeat });
  await press(false);
  await browser.until("the next one has the focus", isTrue(`$$("li").length === 3 && root.activeElement === $("li")`));
  for (let repeats = 0; repeats < 3; repeats += 1) await press(true);
  await browser.until("it can be undone", isTrue(`!$(".done").hidden`));
  assert.deepEqual(await browser.run(inside(`$$(".title").map((title) => title.textContent)`)), ["three", "two", "one"]);
});

test("who is about to undo has the time for it", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  // Eight seconds are soon over, and counted.
  await browser.run(`() => {
    const real = window.setTimeout;
    window.ended = 0;
    window.setTimeout = (call, ms, ...more) => real(ms === 8000 ? () => { window.ended += 1; call(); } : call, ms === 8000 ? 20 : ms, ...more);
  }`);
  await browser.run(inside(`void new MutationObserver(() => $(".done button").focus()).observe($(".done"), { attributes: true })`));
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.click(find("li .archive"));
  await browser.until("the time is over, more than once", `() => window.ended > 2`);
  assert.ok(await browser.run(isTrue(`!$(".done").hidden && root.activeElement?.textContent === "Undo"`)));
  await browser.run(inside(`$(".panel").focus()`));
  await browser.until("it is gone", isTrue(`$(".done").hidden`));
});

test("a long backlog is said once, and what comes afterwards one by one", async (t) => {
  const server = await new Home(t).start();
  const { url, pause } = await relay(t, server.address);
  const app = await pages(t, { "/": page({ url }) });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the stream", isTrue(`element.inbox?.state.status === "live" && !element.inbox.state.isLoading`));
  await browser.run(inside(`void (() => {
    Object.assign(window, { said: [], arrived: [] });
    const announcer = $('[aria-live="polite"]');
    // Each text that is set is a record.
    new MutationObserver((records) => window.said.push(...records.map(() => announcer.textContent))).observe(announcer, { childList: true });
    element.addEventListener("tidings-notification", ({ detail }) => window.arrived.push(detail.isBacklog));
  })()`));
  pause(true);
  await browser.until("the loss", isTrue(`element.inbox.state.status === "waiting"`));
  for (let n = 1; n <= 50; n += 1) await server.notify("anna", { title: `number ${n}` });
  pause(false);
  await browser.run(`() => void dispatchEvent(new Event("online"))`);
  await browser.until("the backlog", isTrue(`window.arrived.length === 50 && window.said.length > 0 && element.inbox.state.items.length === 50`));
  await server.notify("anna", { title: "Live" });
  await browser.until("the next one", isTrue(`window.said.at(-1) === "New notification: Live"`));
  const [said, arrived] = await browser.run(`() => [window.said, window.arrived]`);
  assert.deepEqual(said, ["50 new notifications", "New notification: Live"]);
  assert.deepEqual(arrived, [...Array(50).fill(true), false]);
});

test("that notifications are missing is said when the list is opened", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  // A moment is soon over, until the list is opened.
  await browser.run(`() => {
    const real = (window.real = window.setTimeout);
    window.setTimeout = (call, ms, ...more) => real(call, ms === 8000 ? 0 : ms, ...more);
  }`);
  // Another database has another log.
  await server.kill();
  const other = await new Home(t).start({ address: server.address });
  await other.notify("anna", { title: "Two" });
  await browser.until("the other log", isTrue(`element.inbox.state.items[0]?.payload.title === "Two"`));
  await browser.run(`() => { window.setTimeout = window.real; }`);
  await browser.click(find(".bell"));
  await browser.until("the words", isTrue(`$(".panel").matches(":popover-open") && !$(".done").hidden && $(".done").innerText.includes("no longer kept")`));
});

test("an element that is opened and removed in the same turn leaves nothing behind", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  const left = `async () => {
    ${ELEMENT}
    const ticking = new Set();
    const [set, clear] = [window.setInterval, window.clearInterval];
    window.setInterval = (...args) => { const id = set(...args); ticking.add(id); return id; };
    window.clearInterval = (id) => { ticking.delete(id); clear(id); };
    element.open();
    element.remove();
    element.open();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await new Promise((resolve) => requestAnimationFrame(resolve));
    return [ticking.size, $(".bell").ariaExpanded];
  }`;
  assert.deepEqual(await browser.run(left), [0, "false"]);
});

test("numbers are shown as they were written, and a row is the same from right to left", async (t) => {
  const { server, app, browser } = await opened(t);
  const numbers = `{"user_id":"anna","payload":{"title":12345678901234567890,"body":9007199254740993}}`;
  await server.post("/v1/notifications", numbers);
  await browser.goto(app);
  await browser.run(inside(`void (element.dir = "rtl", element.open())`));
  await browser.until("the title", isTrue(`$("li .title")?.textContent === "12345678901234567890"`));
  assert.equal(await browser.run(inside(`$("li .body").textContent`)), "9007199254740993");
  const inset = inside(`$("li").getBoundingClientRect().right - $("li .icon").getBoundingClientRect().right`);
  assert.equal(await browser.run(inset), 20);
});
