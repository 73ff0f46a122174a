// The client where there is no document, as in Node and in workers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { displayOf } from "./support.mjs";

test("without a document, relative addresses are left out", () => {
  const payload = {
    title: "Hello",
    url: "/orders/7",
    icon: "./icon.png",
    actions: [
      { label: "here", url: "?page=2" },
      { label: "there", url: "//example.com/" },
      { label: "elsewhere", url: "https://example.com/x" },
    ],
  };
  const notification = { payload, payload_text: JSON.stringify(payload), type: "t" };
  assert.deepEqual(displayOf(notification), {
    title: "Hello",
    body: undefined,
    url: undefined,
    icon: undefined,
    actions: [{ label: "elsewhere", url: "https://example.com/x" }],
    isRaw: false,
  });
  assert.equal(displayOf(notification, "https://app.example.com/").url, "https://app.example.com/orders/7");
});
