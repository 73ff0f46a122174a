import { ago, displayOf, pageLanguage } from "./display.js";
import { icon, make } from "./dom.js";
import type { Labels } from "./labels.js";
import type { Notification } from "./wire.js";

const MIDDLE_BUTTON = 1;

/** What a row asks for. */
export interface RowListener {
  onOpen(notification: Notification, event: Event): void;
  /** A link was opened in another tab, with the middle button. */
  onOpenElsewhere(notification: Notification): void;
  onToggleRead(notification: Notification): void;
  onArchive(notification: Notification): void;
}

/** One notification in the list. The row stays the same element while its notification changes. */
export class Row {
  readonly element: HTMLLIElement;
  #notification: Notification;
  readonly #labels: Labels;
  readonly #time: HTMLTimeElement;
  readonly #toggle = make("button", { type: "button" });
  readonly #unread: HTMLSpanElement;

  constructor(notification: Notification, labels: Labels, now: number, listener: RowListener) {
    this.#notification = notification;
    this.#labels = labels;
    const { title, body, url, icon: image, actions } = displayOf(notification);
    const [unreadId, titleId, bodyId, timeId] = ["unread", "title", "body", "time"].map((part) => `${part}-${notification.id}`);
    const open = (event: Event) => listener.onOpen(this.#notification, event);
    const follow = (link: HTMLElement) => {
      link.addEventListener("click", open);
      // The middle button makes no click.
      link.addEventListener("auxclick", ({ button }) => {
        if (button === MIDDLE_BUTTON) listener.onOpenElsewhere(this.#notification);
      });
    };

    this.#unread = make("span", { class: "hidden-text", id: unreadId });
    const nameOf = { class: "title", id: titleId, dir: "auto" };
    const name = url === undefined ? make("span", nameOf, title) : make("a", { ...nameOf, href: url }, title);
    if (url !== undefined) follow(name);
    const content = make("div", {}, this.#unread, name);
    if (body !== undefined) content.append(make("div", { class: "body", id: bodyId, dir: "auto" }, body));
    if (actions.length > 0) {
      const links = actions.map(({ label, url }) => {
        const link = make("a", { class: "action", href: url, dir: "auto" }, label);
        follow(link);
        return link;
      });
      content.append(make("div", { class: "actions" }, ...links));
    }

    this.#time = make("time", { id: timeId, datetime: notification.timestamp });
    this.#toggle.addEventListener("click", () => listener.onToggleRead(this.#notification));
    const archive = make("button", { type: "button", class: "archive", title: labels.archive, "aria-label": labels.archive });
    archive.append(icon("archive"));
    archive.addEventListener("click", () => listener.onArchive(this.#notification));
    const side = make("div", { class: "side" }, this.#time, make("div", { class: "tools" }, this.#toggle, archive));

    // What a screen reader says when the row gets the focus.
    const said = { "aria-labelledby": `${unreadId} ${titleId} ${timeId}`, "aria-describedby": body === undefined ? undefined : bodyId };
    this.element = make("li", { ...said, "data-id": notification.id }, pictureOf(image, title), content, side);
    // One without a link can be clicked as well: it is read then.
    this.element.addEventListener("click", (event) => {
      // The target may be an icon that the click has just replaced. The path is that of before.
      const path = event.composedPath();
      const inside = path.slice(0, path.indexOf(this.element));
      const isElsewhere = !inside.some((node) => node instanceof HTMLAnchorElement || node instanceof HTMLButtonElement);
      if (isElsewhere) open(event);
    });
    this.reach(false);
    this.#show();
    this.tick(now);
  }

  /** Lets the tabulator reach the row and what is in it, or not. */
  reach(isReached: boolean): void {
    for (const part of [this.element, ...this.element.querySelectorAll<HTMLElement>("a, button")]) part.tabIndex = isReached ? 0 : -1;
  }

  update(notification: Notification): void {
    if (notification === this.#notification) return;
    this.#notification = notification;
    this.#show();
  }

  /** Shows how long ago it was, at this time of the server. */
  tick(now: number): void {
    const { timestamp } = this.#notification;
    const language = pageLanguage();
    const date = new Date(timestamp);
    this.#time.textContent = ago(timestamp, this.#labels.now, language, now);
    this.#time.title = date.toLocaleString(language);
  }

  #show(): void {
    const isUnread = this.#notification.read_at === null;
    const { markRead, markUnread, unread } = this.#labels;
    const label = isUnread ? markRead : markUnread;
    this.element.classList.toggle("unread", isUnread);
    this.#unread.textContent = isUnread ? `${unread} ` : "";
    this.#toggle.title = label;
    this.#toggle.setAttribute("aria-label", label);
    this.#toggle.replaceChildren(icon(isUnread ? "check" : "dot"));
  }
}

/** An image, an emoji, or the first letter of the title. */
function pictureOf(image: ReturnType<typeof displayOf>["icon"], title: string): HTMLElement {
  const [letter = ""] = title.match(/[\p{L}\p{N}]/u) ?? [];
  const place = make("div", { class: "icon", "aria-hidden": "true" });
  const showLetter = () => place.replaceChildren(letter === "" ? icon("bell") : letter.toUpperCase());
  if (image === undefined) showLetter();
  else if ("text" in image) place.append(image.text);
  else {
    const picture = make("img", { alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
    picture.addEventListener("error", showLetter);
    picture.src = image.url;
    place.append(picture);
  }
  return place;
}
