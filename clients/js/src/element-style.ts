/** The style of `<tidings-inbox>`. The custom properties at its beginning are its interface: see the README. */
export const STYLE: string = `
:host {
  --_accent: var(--tidings-accent, #3556d8);
  --_badge: var(--tidings-badge, #d92c3a);
  --_background: var(--tidings-background, #ffffff);
  --_hover: var(--tidings-hover, #f3f5f9);
  --_text: var(--tidings-text, #171b26);
  --_muted: var(--tidings-muted, #5c6475);
  --_border: var(--tidings-border, #e2e6ee);
  --_notice: var(--tidings-notice, #fff6e0);
  --_notice-text: var(--tidings-notice-text, #6b4a00);
  --_shadow: 0 1px 2px rgb(16 24 40 / 6%), 0 12px 32px -4px rgb(16 24 40 / 18%);
  color-scheme: light;
  display: inline-block;
  font: var(--tidings-font, 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif);
  text-align: start;
}
:host([hidden]) { display: none }
@media (prefers-color-scheme: dark) {
  :host(:not([theme="light"])) {
    --_accent: var(--tidings-accent, #8da4ff);
    --_badge: var(--tidings-badge, #d8363c);
    --_background: var(--tidings-background, #191c23);
    --_hover: var(--tidings-hover, #23272f);
    --_text: var(--tidings-text, #eceef3);
    --_muted: var(--tidings-muted, #a0a8b8);
    --_border: var(--tidings-border, #30353f);
    --_notice: var(--tidings-notice, #3a2f12);
    --_notice-text: var(--tidings-notice-text, #ffe2a0);
    --_shadow: 0 0 0 1px rgb(0 0 0 / 30%), 0 16px 40px -4px rgb(0 0 0 / 60%);
    color-scheme: dark;
  }
}
:host([theme="dark"]) {
  --_accent: var(--tidings-accent, #8da4ff);
  --_badge: var(--tidings-badge, #d8363c);
  --_background: var(--tidings-background, #191c23);
  --_hover: var(--tidings-hover, #23272f);
  --_text: var(--tidings-text, #eceef3);
  --_muted: var(--tidings-muted, #a0a8b8);
  --_border: var(--tidings-border, #30353f);
  --_notice: var(--tidings-notice, #3a2f12);
  --_notice-text: var(--tidings-notice-text, #ffe2a0);
  --_shadow: 0 0 0 1px rgb(0 0 0 / 30%), 0 16px 40px -4px rgb(0 0 0 / 60%);
  color-scheme: dark;
}
*, *::before, *::after { box-sizing: border-box }
button, a { font: inherit; color: inherit }
button { border: 0; background: none; padding: 0; cursor: pointer; -webkit-tap-highlight-color: transparent }
svg { width: 20px; height: 20px; fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; display: block }
:focus { outline: none }
:focus-visible { outline: 2px solid var(--_accent); outline-offset: 1px }
[hidden] { display: none !important }
.hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }

.bell { position: relative; display: grid; place-items: center; width: 40px; height: 40px; border-radius: 50%; color: var(--tidings-bell, currentColor) }
.bell svg { width: 24px; height: 24px }
.bell:hover { background: color-mix(in srgb, currentColor 9%, transparent) }
.badge { position: absolute; top: 2px; inset-inline-end: 0; min-width: 18px; height: 18px; padding: 0 5px; border-radius: 9px; background: var(--_badge); color: #fff; font-size: 11px; font-weight: 650; line-height: 18px; text-align: center; font-variant-numeric: tabular-nums; box-shadow: 0 0 0 2px var(--tidings-badge-ring, var(--_background)) }
.badge.new { animation: pop .25s ease-out }
@keyframes pop { 0% { transform: scale(.5) } 70% { transform: scale(1.15) } 100% { transform: scale(1) } }

.panel { position: fixed; inset: auto; margin: 0; padding: 0; border: 1px solid var(--_border); width: min(var(--tidings-width, 400px), calc(100vw - 16px)); max-height: min(640px, calc(100dvh - 16px)); background: var(--_background); color: var(--_text); border-radius: var(--tidings-radius, 14px); box-shadow: var(--_shadow); overflow: hidden; flex-direction: column }
.panel:focus { outline: none }
.panel:popover-open { display: flex; animation: appear .14s ease-out }
@keyframes appear { from { opacity: 0; transform: translateY(-4px) } }
header { display: flex; align-items: center; gap: 8px; padding-block: 12px 10px; padding-inline: 18px 10px; border-bottom: 1px solid var(--_border) }
h2 { margin: 0; flex: 1; min-width: 0; overflow-wrap: anywhere; font-size: 16px; font-weight: 650; letter-spacing: -.01em }
.tool { display: inline-flex; align-items: center; gap: 6px; min-height: 32px; padding: 0 10px; border-radius: 8px; color: var(--_muted); font-size: 13px; font-weight: 550; white-space: nowrap }
.tool svg { flex: none; width: 18px; height: 18px }
.tool:hover { background: var(--_hover); color: var(--_text) }
.tool.mark-all { white-space: normal; text-align: start; overflow-wrap: anywhere }
.tool.close { flex: none; padding: 0 7px }

.scroll { flex: 1; min-height: 0; overflow-y: auto; overscroll-behavior: contain; scrollbar-width: thin }
ul { list-style: none; margin: 0; padding: 0 }
li { position: relative; display: grid; grid-template-columns: auto minmax(0, 1fr) auto; column-gap: 12px; padding-block: 12px; padding-inline: 20px 14px; border-bottom: 1px solid var(--_border) }
li:last-child { border-bottom: 0 }
li:hover, li:focus-within { background: var(--_hover) }
li:focus-visible { outline-offset: -2px }
li.unread::before { content: ""; position: absolute; inset-inline-start: 7px; top: 26px; width: 7px; height: 7px; border-radius: 50%; background: var(--_accent) }
li.arrived { animation: arrived 1.6s ease-out }
@keyframes arrived { from { background: color-mix(in srgb, var(--_accent) 18%, var(--_background)) } }
.icon { width: 36px; height: 36px; border-radius: 10px; display: grid; place-items: center; overflow: hidden; background: color-mix(in srgb, var(--_accent) 13%, var(--_background)); color: var(--_accent); font-size: 16px; font-weight: 600; user-select: none }
.icon img { width: 100%; height: 100%; object-fit: cover }
.title { font-weight: 500; color: var(--_text); text-decoration: none }
.unread .title { font-weight: 650 }
.title, .body { unicode-bidi: plaintext; overflow-wrap: anywhere; white-space: pre-line; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden }
/* All of a row with a link leads there, but for its other links and its buttons. */
.side, .actions { pointer-events: none }
.tools button, .action { pointer-events: auto }
a.title::after { content: ""; position: absolute; inset: 0 }
a.title:hover { text-decoration: underline; text-underline-offset: 2px }
a.title:focus-visible { outline: none }
a.title:focus-visible::after { outline: 2px solid var(--_accent); outline-offset: -2px; border-radius: 4px }
.body { margin-top: 2px; color: var(--_muted); font-size: 13px }
.actions { position: relative; z-index: 1; display: flex; flex-wrap: wrap; gap: 8px; margin-top: 9px }
.action { padding: 4px 11px; border: 1px solid var(--_border); border-radius: 8px; background: var(--_background); font-size: 13px; font-weight: 550; text-decoration: none; overflow-wrap: anywhere }
.action:hover { border-color: var(--_accent); color: var(--_accent) }
.side { position: relative; z-index: 1; display: flex; flex-direction: column; align-items: flex-end; min-width: 68px }
time { color: var(--_muted); font-size: 12px; line-height: 20px; white-space: nowrap }
.tools { position: absolute; top: -4px; inset-inline-end: -4px; display: flex; gap: 2px; opacity: 0; border-radius: 8px; background: var(--_hover) }
li:hover .tools, li:focus-within .tools, li:focus .tools { opacity: 1 }
li:hover time, li:focus-within time { opacity: 0 }
.tools button { display: grid; place-items: center; width: 32px; height: 32px; border-radius: 8px; color: var(--_muted) }
.tools button:hover { background: color-mix(in srgb, var(--_text) 9%, transparent); color: var(--_text) }
@media (hover: none) {
  .tools { position: static; opacity: 1; background: none; margin-top: 2px }
  li:hover time, li:focus-within time { opacity: 1 }
}

.empty { padding: 52px 24px 60px; text-align: center; color: var(--_muted) }
.empty svg { width: 44px; height: 44px; margin: 0 auto 12px; stroke-width: 1.1; opacity: .65 }
.empty strong { display: block; color: var(--_text); font-weight: 600; font-size: 15px }
.skeleton { display: flex; gap: 12px; padding: 14px 20px }
.skeleton i { flex: none; width: 36px; height: 36px; border-radius: 10px }
.skeleton div { flex: 1; display: grid; gap: 8px; align-content: center }
.skeleton b { height: 10px; border-radius: 5px; width: 62% }
.skeleton b + b { width: 88% }
.skeleton i, .skeleton b { background: var(--_border); animation: pulse 1.4s ease-in-out infinite }
@keyframes pulse { 50% { opacity: .45 } }
.more { display: block; width: 100%; padding: 12px; color: var(--_accent); font-weight: 550; font-size: 13px }
.more:hover { background: var(--_hover) }
.notice { display: flex; align-items: center; gap: 10px; padding: 9px 18px; font-size: 13px; background: var(--_notice); color: var(--_notice-text) }
.notice span { flex: 1 }
.notice button { font-weight: 650; text-decoration: underline; text-underline-offset: 2px; min-height: 28px; white-space: nowrap }
.notice.done { background: var(--_hover); color: var(--_text); border-top: 1px solid var(--_border) }
.notice.done button { color: var(--_accent); text-decoration: none }

@media (max-width: 480px) {
  .panel { inset: 0 !important; width: 100vw; height: 100dvh; max-height: none !important; border: 0; border-radius: 0 }
  .tool, .tools button { min-height: 40px; min-width: 40px }
}
@media (min-width: 481px) { .tool.close { display: none } }
@media (prefers-reduced-motion: reduce) { *, *::before { animation: none !important } }
@media (forced-colors: active) { li.unread::before, .badge { forced-color-adjust: none } .panel { border-color: CanvasText } }
`;
