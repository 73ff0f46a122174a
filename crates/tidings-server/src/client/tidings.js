// tidings-client 0.1.0, MIT OR Apache-2.0. Made from clients/js/src by `npm run build`.
// error.ts
class TidingsError extends Error {
	name = "TidingsError";
	code;
	status;
	field;
	requestId;
	retryAfterMs;
	constructor(message, details) {
		super(message, { cause: details.cause });
		this.code = details.code;
		this.status = details.status;
		this.field = details.field;
		this.requestId = details.requestId;
		this.retryAfterMs = details.retryAfterMs;
	}
	get isRetryable() {
		switch (this.code) {
			case "unreachable":
			case "timeout":
			case "token_unavailable":
			case "unexpected_response":
			case "ended":
				return true;
			default:
				return this.status !== undefined && (this.status >= 500 || this.status === 408 || this.status === 429);
		}
	}
}
function retryAfter(header, now = Date.now()) {
	if (header === null)
		return undefined;
	if (/^\d+$/.test(header.trim()))
		return Number(header) * 1000;
	const date = Date.parse(header);
	return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
const CODES = { 401: "unauthorized", 429: "too_many_requests" };
function errorOf(response, body) {
	const { status } = response;
	const details = { status, retryAfterMs: retryAfter(response.headers.get("retry-after")) };
	let error;
	try {
		error = JSON.parse(body).error;
	}
	catch {
	}
	if (typeof error?.code !== "string" || typeof error.message !== "string") {
		return notFromTidings(status, { ...details, code: CODES[status] ?? "unexpected_response" });
	}
	const message = error.field === undefined ? error.message : `${error.field}: ${error.message}`;
	const requestId = error.request_id ?? response.headers.get("x-request-id") ?? undefined;
	return new TidingsError(message, { ...details, code: error.code, field: error.field, requestId });
}
function notFromTidings(status, details) {
	const message = `the reply has the status ${status} and is not from Tidings`;
	return new TidingsError(message, { code: "unexpected_response", status, ...details });
}
function asTidingsError(thrown) {
	if (thrown instanceof TidingsError)
		return thrown;
	if (thrown instanceof SyntaxError) {
		return new TidingsError("the server sent what is not JSON", { code: "unexpected_response", cause: thrown });
	}
	const isTimeout = thrown instanceof DOMException && thrown.name === "TimeoutError";
	return isTimeout
		? new TidingsError("the server did not reply in time", { code: "timeout", cause: thrown })
		: new TidingsError("the server does not reply", { code: "unreachable", cause: thrown });
}
function reportUncaught(error) {
	if (typeof reportError === "function")
		reportError(error);
	else
		queueMicrotask(() => {
			throw error;
		});
}
// server-clock.ts
class ServerClock {
	#behind = 0;
	learn(date, elapsed) {
		const at = Date.parse(date ?? "");
		if (Number.isNaN(at))
			return;
		const here = Date.now();
		const [least, most] = [at - here, at + 1000 + elapsed - here];
		if (this.#behind < least || this.#behind > most)
			this.#behind = (least + most) / 2;
	}
	now() {
		return Date.now() + this.#behind;
	}
}
// tokens.ts
const TOKEN_TIMEOUT_MS = 15_000;
const FAILED_MS = 1000;
class Tokens {
	#source;
	#current;
	#asking;
	#failure;
	constructor(source) {
		this.#source = source;
	}
	get canRenew() {
		return this.#source !== undefined;
	}
	async current() {
		return this.#source === undefined ? undefined : (this.#current ?? this.#ask(this.#source));
	}
	async renew(before) {
		if (this.#source === undefined)
			return undefined;
		if (this.#current !== undefined && this.#current !== before)
			return this.#current;
		return this.#ask(this.#source);
	}
	refuse(token) {
		if (this.#current === token)
			this.#current = undefined;
	}
	#ask(source) {
		if (this.#failure !== undefined && performance.now() - this.#failure.at < FAILED_MS) {
			const { error } = this.#failure;
			return Promise.reject(new TidingsError(error.message, error));
		}
		this.#asking ??= this.#call(source).finally(() => {
			this.#asking = undefined;
		});
		return this.#asking;
	}
	async #call(source) {
		let timer;
		const timeout = new Promise((_, reject) => {
			const late = () => reject(new Error(`no token after ${TOKEN_TIMEOUT_MS / 1000} seconds`));
			timer = setTimeout(late, TOKEN_TIMEOUT_MS);
		});
		try {
			const token = await Promise.race([Promise.resolve().then(source), timeout]);
			this.#current = checked(token);
			this.#failure = undefined;
			return this.#current;
		}
		catch (cause) {
			const reason = cause instanceof Error ? cause.message : String(cause);
			const error = new TidingsError(`the application returned no token: ${reason}`, { code: "token_unavailable", status: statusOf(cause), cause });
			this.#failure = { error, at: performance.now() };
			throw error;
		}
		finally {
			clearTimeout(timer);
		}
	}
}
function statusOf(cause) {
	const { status } = Object(cause);
	return typeof status === "number" ? status : undefined;
}
const isToken = (text) => typeof text === "string" && /^[\x21-\x7e]+$/.test(text);
const isMarkup = (text) => /^<[^>]+>/.test(text);
function checked(token) {
	if (typeof token !== "string")
		throw new TypeError(`expected a text, got ${token === null ? "null" : typeof token}`);
	const text = token.trim();
	if (text === "")
		throw new TypeError("expected a token, got an empty text");
	if (!isToken(text) || isMarkup(text))
		throw new TypeError(`expected a token, got a text that begins with ${JSON.stringify(text.slice(0, 20))}`);
	return text;
}
// wait.ts
const MAX_TIMER_MS = 2 ** 31 - 1;
function wait(ms, signal) {
	return new Promise((resolve) => {
		if (signal?.aborted)
			return resolve();
		const done = () => {
			clearTimeout(timer);
			signal?.removeEventListener("abort", done);
			resolve();
		};
		const timer = setTimeout(done, Math.min(ms, MAX_TIMER_MS));
		signal?.addEventListener("abort", done);
	});
}
const MAX_HINT_MS = 10 * 60_000;
function hinted(ms) {
	return ms > 0 ? Math.min(ms, MAX_HINT_MS) : 0;
}
function silenceOf(pingMs) {
	return pingMs > 0 ? Math.min(2 * pingMs + 5000, MAX_TIMER_MS) : MAX_TIMER_MS;
}
class Backoff {
	baseMs = 1000;
	#failures = 0;
	#capMs;
	constructor(capMs) {
		this.#capMs = capMs;
	}
	get isFresh() {
		return this.#failures === 0;
	}
	next(hintMs = 0) {
		const ceiling = Math.min(this.#capMs, this.baseMs * 2 ** this.#failures);
		this.#failures = Math.min(this.#failures + 1, 30);
		return hinted(hintMs) + Math.random() * ceiling;
	}
	reset() {
		this.#failures = 0;
	}
}
// api.ts
const REQUEST_TIMEOUT_MS = 20_000;
const MAX_TRIES = 3;
const MAX_WAIT_MS = 5000;
class Api {
	user;
	tokens;
	clock = new ServerClock();
	base;
	#credentials;
	constructor({ url, user, tokens, credentials }) {
		const server = new URL(url.endsWith("/") ? url : `${url}/`);
		this.user = user;
		this.tokens = tokens;
		this.base = new URL(`v1/users/${encodeURIComponent(user)}/`, server).href;
		this.#credentials = credentials;
	}
	async send(path, token, init) {
		const headers = new Headers(init.headers);
		if (token !== undefined)
			headers.set("Authorization", `Bearer ${token}`);
		const askedAt = performance.now();
		let response;
		try {
			response = await fetch(this.base + path, { ...init, headers, credentials: this.#credentials, cache: "no-store" });
		}
		catch (error) {
			throw asTidingsError(error);
		}
		this.clock.learn(response.headers.get("date"), performance.now() - askedAt);
		if (response.ok)
			return response;
		throw errorOf(response, await response.text().catch(() => ""));
	}
	async call(method, path, read, body) {
		const backoff = new Backoff(MAX_WAIT_MS);
		let isRefused = false;
		for (let tries = 1;; tries += 1) {
			const token = await this.tokens.current();
			try {
				const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
				const init = { method, signal, headers: { Accept: "application/json" } };
				if (method === "POST")
					init.keepalive = true;
				if (body !== undefined)
					init.body = JSON.stringify(body);
				const response = await this.send(path, token, init);
				const text = await response.text().catch((error) => {
					throw asTidingsError(error);
				});
				try {
					return read(text);
				}
				catch (cause) {
					throw notFromTidings(response.status, { cause });
				}
			}
			catch (thrown) {
				const error = asTidingsError(thrown);
				const hint = error.retryAfterMs ?? 0;
				if (error.status === 401)
					this.tokens.refuse(token);
				if (tries === MAX_TRIES || hint > MAX_WAIT_MS)
					throw error;
				if (error.status === 401 && !isRefused && token !== undefined) {
					isRefused = true;
					continue;
				}
				if (!error.isRetryable)
					throw error;
				await wait(backoff.next(hint));
			}
		}
	}
}
// expect.ts
function expect(option, holds, expected, got) {
	if (!holds)
		throw new TypeError(`${option}: expected ${expected}, got ${typeof got === "string" ? JSON.stringify(got) : String(got)}`);
}
function expectOptions(options, ...known) {
	expect("options", typeof options === "object" && options !== null, "an object", options);
	for (const name of Object.keys(options)) {
		if (!known.includes(name))
			throw new TypeError(`${name}: expected an option with one of the names ${known.join(", ")}`);
	}
}
function expectHandlers(options, ...handlers) {
	for (const name of handlers) {
		const handler = options[name];
		expect(name, handler === undefined || typeof handler === "function", "a function", handler);
	}
}
// ids.ts
const ORIGIN = "0000000000000000-0";
function compareIds(a, b) {
	if (a === b)
		return 0;
	if (a === ORIGIN)
		return -1;
	if (b === ORIGIN)
		return 1;
	const [epochOfA, seqOfA = ""] = a.split("-");
	const [epochOfB, seqOfB = ""] = b.split("-");
	if (epochOfA !== epochOfB)
		return undefined;
	if (seqOfA.length !== seqOfB.length)
		return seqOfA.length - seqOfB.length;
	return seqOfA < seqOfB ? -1 : 1;
}
function isAfter(a, b) {
	const order = compareIds(a, b);
	return order !== undefined && order > 0;
}
function isUpTo(a, b) {
	const order = compareIds(a, b);
	return order !== undefined && order <= 0;
}
function expectEventId(option, value) {
	const isId = typeof value === "string" && /^[0-9a-f]{16}-\d{1,20}$/.test(value);
	expect(option, isId, "the id of an event, such as 6f1c0a52d3e84b97-17", value);
}
// json.ts
const SPACE = /[^ \t\r\n]/g;
const SCALAR_END = /[,\]} \t\r\n]/g;
function find(pattern, text, from) {
	pattern.lastIndex = from;
	return pattern.exec(text)?.index ?? text.length;
}
function endOfString(text, start) {
	for (let at = start + 1; at < text.length; at += 1) {
		if (text[at] === "\\")
			at += 1;
		else if (text[at] === '"')
			return at + 1;
	}
	return text.length;
}
function endOfValue(text, start) {
	const first = text[start];
	if (first === '"')
		return endOfString(text, start);
	if (first !== "{" && first !== "[")
		return find(SCALAR_END, text, start);
	let depth = 0;
	for (let at = start; at < text.length;) {
		const character = text[at];
		if (character === '"') {
			at = endOfString(text, at);
			continue;
		}
		if (character === "{" || character === "[")
			depth += 1;
		if (character === "}" || character === "]")
			depth -= 1;
		at += 1;
		if (depth === 0)
			return at;
	}
	return text.length;
}
function memberText(text, name) {
	let at = find(SPACE, text, 0) + 1;
	while (at < text.length) {
		const key = find(SPACE, text, at);
		if (text[key] !== '"')
			return undefined;
		const keyEnd = endOfString(text, key);
		const value = find(SPACE, text, find(SPACE, text, keyEnd) + 1);
		const valueEnd = endOfValue(text, value);
		if (JSON.parse(text.slice(key, keyEnd)) === name)
			return text.slice(value, valueEnd);
		at = find(SPACE, text, valueEnd) + 1;
	}
	return undefined;
}
function elementTexts(text) {
	const elements = [];
	let at = find(SPACE, text, 0) + 1;
	for (;;) {
		const value = find(SPACE, text, at);
		if (value >= text.length || text[value] === "]")
			return elements;
		const valueEnd = endOfValue(text, value);
		elements.push(text.slice(value, valueEnd));
		at = find(SPACE, text, valueEnd) + 1;
	}
}
// sse.ts
const MAX_LENGTH = 64 * 1024 * 1024;
class EventParser {
	retryMs;
	#pieces = [];
	#length = 0;
	#event = "";
	#data = [];
	#isStart = true;
	#skipLineFeed = false;
	push(piece) {
		const events = [];
		let at = 0;
		if (this.#isStart && piece !== "") {
			this.#isStart = false;
			if (piece.startsWith("\ufeff"))
				at = 1;
		}
		if (this.#skipLineFeed && at < piece.length) {
			this.#skipLineFeed = false;
			if (piece[at] === "\n")
				at += 1;
		}
		while (at < piece.length) {
			const end = lineEnd(piece, at);
			this.#pieces.push(piece.slice(at, end));
			this.#length += end - at;
			if (this.#length > MAX_LENGTH) {
				throw new TidingsError("the stream has an event that is too long", { code: "unexpected_response" });
			}
			if (end === piece.length)
				break;
			const line = this.#pieces.length === 1 ? (this.#pieces[0] ?? "") : this.#pieces.join("");
			this.#pieces = [];
			at = end + 1;
			if (piece[end] === "\r") {
				if (at === piece.length)
					this.#skipLineFeed = true;
				else if (piece[at] === "\n")
					at += 1;
			}
			this.#takeLine(line, events);
		}
		return events;
	}
	#takeLine(line, events) {
		if (line === "") {
			if (this.#data.length > 0)
				events.push({ event: this.#event || "message", data: this.#data.join("\n") });
			this.#event = "";
			this.#data = [];
			this.#length = 0;
			return;
		}
		const colon = line.indexOf(":");
		const name = colon < 0 ? line : line.slice(0, colon);
		const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
		if (name === "data")
			this.#data.push(value);
		else if (name === "event")
			this.#event = value;
		else if (name === "retry" && /^\d+$/.test(value))
			this.retryMs = Number(value);
		if (name !== "data")
			this.#length -= line.length;
	}
}
function lineEnd(text, from) {
	const feed = text.indexOf("\n", from);
	const end = feed < 0 ? text.length : feed;
	const carriage = text.slice(from, end).indexOf("\r");
	return carriage < 0 ? end : from + carriage;
}
// wire.ts
function helloOf(text) {
	const { user_id, cursor, ping_interval_ms } = JSON.parse(text);
	return { user_id, cursor, ping_interval_ms };
}
function notificationOf(text) {
	return { ...JSON.parse(text), payload_text: memberText(text, "payload") ?? "null" };
}
function countsOf(text) {
	const counts = JSON.parse(text);
	const isOurs = typeof counts?.unread === "number" && typeof counts.unseen === "number" && typeof counts.cursor === "string";
	if (!isOurs)
		throw new TypeError("expected counts");
	return counts;
}
function pageOf(text) {
	const { data, ...rest } = countsOf(text);
	if (!Array.isArray(data))
		throw new TypeError("expected a page");
	return { ...rest, data: elementTexts(memberText(text, "data") ?? "[]").map(notificationOf) };
}
// transport.ts
const TRANSPORTS = ["sse", "websocket"];
class Closed {
	code;
	reason;
	constructor(code, reason) {
		this.code = code;
		this.reason = reason;
	}
}
function startOf({ cursor, since }) {
	if (cursor !== undefined)
		return `last_event_id=${encodeURIComponent(cursor)}`;
	return since === undefined ? "" : `since=${encodeURIComponent(since)}`;
}
const receiveEvents = async (api, listener) => {
	const { token, signal } = listener;
	const headers = { Accept: "text/event-stream, application/json" };
	const response = await api.send(`events?${startOf(listener)}`, token, { headers, signal });
	const type = response.headers.get("content-type") ?? "";
	if (!type.startsWith("text/event-stream") || response.body === null) {
		await response.body?.cancel();
		throw new TidingsError(`expected an event stream, got ${type || "no content type"}`, {
			code: "unexpected_response",
			status: response.status,
		});
	}
	const reader = response.body.getReader();
	const decoder = new TextDecoder();
	const parser = new EventParser();
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done)
				return undefined;
			listener.onActivity();
			const events = parser.push(decoder.decode(value, { stream: true }));
			if (parser.retryMs !== undefined)
				listener.onRetry(parser.retryMs);
			for (const { event, data } of events) {
				const name = event === "message" ? "notification" : event.replace(/^tidings\./, "");
				listener.onFrame({ event: name, text: data });
			}
		}
	}
	catch (error) {
		throw asTidingsError(error);
	}
	finally {
		reader.cancel().catch(() => { });
	}
};
const receiveFrames = (api, listener) => new Promise((resolve, reject) => {
	const { token, signal } = listener;
	if (typeof WebSocket !== "function") {
		const message = 'this platform has no WebSocket (Node has one from version 22): use the transport "sse"';
		throw new TidingsError(message, { code: "unsupported" });
	}
	const url = new URL(`ws?${startOf(listener)}`, api.base);
	url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
	const socket = openSocket(url, token);
	let isOpen = false;
	let failure;
	const abort = () => {
		socket.close();
		reject(asTidingsError(signal.reason));
	};
	signal.addEventListener("abort", abort);
	socket.onopen = () => {
		isOpen = true;
	};
	socket.onmessage = ({ data }) => {
		if (signal.aborted || failure !== undefined)
			return;
		try {
			listener.onActivity();
			listener.onFrame(frameOf(data));
		}
		catch (error) {
			failure = error;
			socket.close();
		}
	};
	let isOver = false;
	const end = (closed) => {
		if (isOver)
			return;
		isOver = true;
		signal.removeEventListener("abort", abort);
		if (failure !== undefined)
			reject(asTidingsError(failure));
		else if (isOpen)
			resolve(closed);
		else
			explain(api, listener).then(reject, reject);
	};
	socket.onclose = ({ code, reason }) => end(new Closed(code, reason));
	socket.onerror = () => setTimeout(() => end(new Closed(1006, "")));
});
function openSocket(url, token) {
	try {
		return new WebSocket(url, token === undefined ? ["tidings.v1"] : ["tidings.v1", `tidings.token.${token}`]);
	}
	catch (cause) {
		const message = "the token has characters that no WebSocket can send";
		throw new TidingsError(message, { code: "unauthorized", status: 401, cause });
	}
}
function frameOf(data) {
	if (typeof data !== "string")
		throw new TidingsError("expected text frames", { code: "unexpected_response" });
	const { event } = JSON.parse(data);
	return { event, text: event === "notification" ? (memberText(data, "data") ?? "") : data };
}
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;
async function explain(api, { token, signal }) {
	try {
		const response = await api.send("ws", token, { headers: { Accept: "application/json" }, signal });
		return errorOf(response, "");
	}
	catch (thrown) {
		const error = asTidingsError(thrown);
		if (error.status !== 426)
			return error;
		if (token !== undefined && !TOKEN.test(token)) {
			return new TidingsError('an API key cannot be sent over a WebSocket: use the transport "sse"', { code: "unsupported" });
		}
		const message = "the server replies, but no WebSocket can be opened: a proxy may not pass it on";
		return new TidingsError(message, { code: "unreachable" });
	}
}
// connection.ts
function handOver(reader, { event, text }, onFrame) {
	if (event === "hello")
		reader.cursor ??= JSON.parse(text).cursor;
	const id = event === "notification" ? JSON.parse(text).id : undefined;
	if (id !== undefined && reader.cursor !== undefined && isUpTo(id, reader.cursor))
		return;
	onFrame();
	if (id !== undefined)
		reader.cursor = id;
	if (event === "gap")
		reader.cursor = JSON.parse(text).to;
}
const OPENING_MS = 20_000;
const STABLE_MS = 10_000;
const LOOK_MS = 10_000;
const AWAY_MS = 30_000;
const TRY_MS = 1000;
const MAX_REFUSALS = 8;
const MANY_FOREIGN = 5;
class Connection {
	cursor;
	#api;
	#options;
	#listener;
	#backoff;
	#closed = new AbortController();
	#current;
	#successor;
	#refusals = 0;
	#foreign = 0;
	#isOffline = false;
	#triedAt = -Infinity;
	#lookedAt = Date.now();
	#hurried;
	constructor(api, options, listener) {
		this.#api = api;
		this.#options = options;
		this.#listener = listener;
		this.#backoff = new Backoff(options.maxWaitMs);
		this.cursor = options.cursor;
		this.#current = this.#open();
		if (typeof document !== "undefined")
			this.#watchPage();
		void this.#run();
	}
	close() {
		this.#closed.abort();
		this.#current.controller.abort();
		this.#successor?.controller.abort();
	}
	hurry() {
		this.#hurried?.abort();
	}
	look() {
		const now = Date.now();
		if (now - this.#lookedAt > AWAY_MS)
			this.#try();
		this.#lookedAt = now;
	}
	#watchPage() {
		const { signal } = this.#closed;
		const isVisible = () => document.visibilityState === "visible";
		const timer = setInterval(() => {
			if (isVisible())
				this.look();
		}, LOOK_MS);
		signal.addEventListener("abort", () => clearInterval(timer));
		const onShow = () => {
			if (!isVisible())
				return;
			this.look();
			this.hurry();
		};
		document.addEventListener("visibilitychange", onShow, { signal });
		const onOnline = () => {
			this.#try();
			if (isVisible())
				this.hurry();
		};
		addEventListener("online", onOnline, { signal });
		const onOffline = () => {
			if (!this.#current.isOpen || this.#isOffline)
				return;
			this.#isOffline = true;
			this.#listener.onStatus("waiting", new TidingsError("the browser has no network", { code: "unreachable" }));
		};
		addEventListener("offline", onOffline, { signal });
	}
	#try() {
		if (!this.#current.isOpen || this.#successor !== undefined)
			return;
		this.#triedAt = performance.now();
		this.#openSuccessor();
	}
	async #run() {
		while (!this.#closed.signal.aborted) {
			const attempt = this.#current;
			const end = await attempt.ended;
			attempt.controller.abort();
			if (this.#closed.signal.aborted)
				return;
			if (attempt !== this.#current)
				continue;
			this.#successor?.controller.abort();
			this.#successor = undefined;
			this.#isOffline = false;
			const { reason = "the connection was closed", reconnect_after_ms: retryAfterMs } = end.bye ?? {};
			const error = this.#counted(end.error ?? new TidingsError(reason, { code: "ended", retryAfterMs }));
			const next = await this.#planAfter(end, error);
			if (this.#closed.signal.aborted)
				return;
			if (next === undefined)
				return this.#listener.onStatus("failed", error);
			this.#listener.onStatus("waiting", next.error ?? error);
			await this.#waitForRetry(next.ms, next.canHurry);
			if (this.#closed.signal.aborted)
				return;
			this.#current = this.#open();
		}
	}
	#counted(error) {
		const { code, status, retryAfterMs, message } = error;
		const isForeign = code === "unexpected_response" && status !== undefined && status < 500 && status !== 408;
		this.#foreign = isForeign ? this.#foreign + 1 : 0;
		if (this.#foreign < MANY_FOREIGN)
			return error;
		const advice = "check the url, and whether a proxy passes its routes on to the server";
		return new TidingsError(`${message}, ${this.#foreign} times in a row: ${advice}`, { code, status, retryAfterMs, cause: error });
	}
	async #planAfter(end, error) {
		const { bye, token, openedAt } = end;
		const isStable = openedAt !== undefined && performance.now() - openedAt >= STABLE_MS;
		if (isStable)
			this.#backoff.reset();
		if (openedAt !== undefined)
			this.#refusals = 0;
		const isRefused = (error.status === 401 && error.code !== "token_unavailable") || bye?.code === EXPIRED || bye?.code === REVOKED;
		if (bye?.code === EXPIRED && !this.#api.tokens.canRenew)
			return { ms: this.#backoff.next(), canHurry: false };
		if (isRefused) {
			this.#refusals += 1;
			this.#api.tokens.refuse(token);
			if (!this.#api.tokens.canRenew || this.#refusals >= MAX_REFUSALS)
				return undefined;
			try {
				const isNew = (await this.#api.tokens.current()) !== token;
				return { ms: isNew && this.#refusals === 1 ? 0 : this.#backoff.next(), canHurry: false };
			}
			catch (thrown) {
				return { ms: this.#backoff.next(), canHurry: true, error: asTidingsError(thrown) };
			}
		}
		if (bye !== undefined) {
			if (bye.code < 4100)
				return undefined;
			const hint = bye.reconnect_after_ms;
			const isAtOnce = bye.code >= 4200 && this.#backoff.isFresh;
			const later = this.#backoff.next(hint);
			return { ms: isAtOnce ? hinted(hint) : later, canHurry: false };
		}
		if (!error.isRetryable)
			return undefined;
		const hint = error.retryAfterMs;
		return { ms: this.#backoff.next(hint), canHurry: hint === undefined };
	}
	async #waitForRetry(ms, canHurry) {
		const hurried = new AbortController();
		const { signal } = hurried;
		this.#closed.signal.addEventListener("abort", () => hurried.abort(), { signal });
		if (canHurry)
			this.#hurried = hurried;
		if (!this.#closed.signal.aborted)
			await wait(ms, signal);
		hurried.abort();
		this.#hurried = undefined;
	}
	#open() {
		const controller = new AbortController();
		const attempt = { controller, isOpen: false, ended: Promise.resolve({ token: undefined }) };
		attempt.ended = Promise.resolve().then(() => this.#receive(attempt));
		return attempt;
	}
	async #receive(attempt) {
		const { signal } = attempt.controller;
		const end = { token: undefined };
		let silenceMs = OPENING_MS;
		let timer;
		const onActivity = () => {
			clearTimeout(timer);
			timer = setTimeout(() => attempt.controller.abort(new DOMException("silence", "TimeoutError")), silenceMs);
		};
		try {
			end.token = await this.#api.tokens.current();
			if (signal.aborted)
				return end;
			onActivity();
			const receive = this.#options.transport === "websocket" ? receiveFrames : receiveEvents;
			const closed = await receive(this.#api, {
				cursor: this.cursor,
				since: this.#options.since,
				token: end.token,
				signal,
				onActivity: () => {
					onActivity();
					const isThere = this.#isOffline && attempt === this.#current;
					if (isThere && performance.now() - this.#triedAt >= TRY_MS)
						this.#try();
				},
				onRetry: (ms) => {
					this.#backoff.baseMs = Math.max(ms, 100);
				},
				onFrame: (frame) => {
					if (signal.aborted)
						return;
					if (frame.event === "hello") {
						end.openedAt = performance.now();
						attempt.isOpen = true;
						const { ping_interval_ms: pingMs } = JSON.parse(frame.text);
						silenceMs = silenceOf(pingMs);
						onActivity();
						this.#takeOver(attempt);
					}
					if (frame.event === "bye")
						end.bye = JSON.parse(frame.text);
					if (attempt === this.#current)
						this.#take(frame, end.token);
				},
			});
			if (closed !== undefined)
				end.bye ??= byeOf(closed);
		}
		catch (thrown) {
			end.error = asTidingsError(thrown);
		}
		finally {
			clearTimeout(timer);
			attempt.isOpen = false;
		}
		return end;
	}
	#takeOver(attempt) {
		if (attempt !== this.#successor)
			return;
		this.#successor = undefined;
		const before = this.#current;
		this.#current = attempt;
		this.#refusals = 0;
		this.#isOffline = false;
		before.controller.abort();
	}
	#take(frame, token) {
		if (frame.event === "expiring")
			void this.#replace(token);
		if (["expiring", "bye", "ping"].includes(frame.event))
			return;
		handOver(this, frame, () => {
			if (frame.event === "hello")
				this.#listener.onStatus("live");
			this.#listener.onFrame(frame);
		});
	}
	async #replace(token) {
		if (!this.#api.tokens.canRenew)
			return;
		const { signal } = this.#current.controller;
		const backoff = new Backoff(this.#options.maxWaitMs);
		let renewed;
		while (renewed === undefined && !signal.aborted) {
			renewed = await this.#api.tokens.renew(token).catch(() => undefined);
			if (renewed === undefined)
				await wait(backoff.next(), signal);
		}
		if (renewed !== token && !signal.aborted && this.#successor === undefined)
			this.#openSuccessor();
	}
	#openSuccessor() {
		const successor = this.#open();
		this.#successor = successor;
		void successor.ended.then(() => {
			if (this.#successor === successor)
				this.#successor = undefined;
		});
	}
}
const EXPIRED = 4003;
const REVOKED = 4004;
function byeOf({ code, reason }) {
	const isOurs = code >= 4000 && code < 4300;
	return isOurs ? { code, reason, reconnect_after_ms: 0 } : undefined;
}
// inbox-state.ts
function ofPage({ data, unread, unseen, cursor, next }) {
	return { items: data, unread, unseen, cursor, counted: cursor, next };
}
const isUnread = ({ read_at }) => read_at === null;
function unseenOf({ items, unseen }) {
	return new Set(items.filter(isUnread).slice(0, unseen));
}
function without(contents, isGone) {
	const gone = contents.items.filter(isGone);
	if (gone.length === 0)
		return contents;
	const unseen = unseenOf(contents);
	return {
		...contents,
		items: contents.items.filter((item) => !isGone(item)),
		unread: Math.max(0, contents.unread - gone.filter(isUnread).length),
		unseen: Math.max(0, contents.unseen - gone.filter((item) => unseen.has(item)).length),
	};
}
function withReadState(contents, isMarked, at) {
	const changes = (item) => isMarked(item) && isUnread(item) === (at !== null);
	const marked = contents.items.filter(changes);
	if (marked.length === 0)
		return contents;
	const items = contents.items.map((item) => (changes(item) ? { ...item, read_at: at } : item));
	if (at === null)
		return { ...contents, items, unread: contents.unread + marked.length };
	const unseen = unseenOf(contents);
	return {
		...contents,
		items,
		unread: Math.max(0, contents.unread - marked.length),
		unseen: Math.max(0, contents.unseen - marked.filter((item) => unseen.has(item)).length),
	};
}
function withItem(contents, item) {
	const { items, next } = contents;
	if (items.some(({ id }) => id === item.id))
		return contents;
	if (next !== null && isUpTo(item.id, next))
		return contents;
	const at = items.findIndex(({ id }) => isAfter(item.id, id));
	const index = at < 0 ? items.length : at;
	return { ...contents, items: [...items.slice(0, index), item, ...items.slice(index)] };
}
function afterNotification(contents, notification) {
	const order = compareIds(notification.id, contents.cursor);
	if (order === undefined)
		return undefined;
	if (order <= 0)
		return contents;
	const { key, id } = notification;
	const replaced = key === null ? contents : without(contents, (item) => item.key === key);
	const isListed = notification.archived_at === null;
	const listed = { ...replaced, cursor: id, items: isListed ? [notification, ...replaced.items] : replaced.items };
	if (isUpTo(id, contents.counted))
		return { ...listed, unread: contents.unread, unseen: contents.unseen };
	const added = isListed && isUnread(notification) ? 1 : 0;
	return { ...listed, unread: replaced.unread + added, unseen: replaced.unseen + added };
}
function withNextPage(contents, page, since, at) {
	let older = ofPage(page);
	for (const happened of since) {
		if ("change" in happened)
			older = afterChange(older, happened, at, () => undefined);
		else if (happened.key !== null && isAfter(happened.id, page.cursor))
			older = without(older, ({ key }) => key === happened.key);
		if (older === undefined)
			return undefined;
	}
	return { ...contents, items: [...contents.items, ...older.items], next: page.next };
}
function trimmed(contents, max) {
	const { items } = contents;
	const last = items[max - 1];
	if (items.length <= max || last === undefined)
		return contents;
	return { ...contents, items: items.slice(0, max), next: last.id };
}
function afterChange(contents, change, at, known) {
	const order = compareIds(change.cursor, contents.counted);
	if (order === undefined)
		return undefined;
	if (order < 0)
		return contents;
	const changed = itemsAfter(contents, change, at, known);
	if (changed === undefined)
		return undefined;
	const later = changed.items.filter((item) => isUnread(item) && isAfter(item.id, change.cursor)).length;
	return { ...changed, unread: change.unread + later, unseen: change.unseen + later, counted: change.cursor };
}
function itemsAfter(contents, change, at, known) {
	const ids = new Set(change.ids);
	const { up_to: upTo } = change;
	const isNamed = ({ id }) => ids.has(id);
	switch (change.change) {
		case "read":
			return withReadState(contents, upTo === undefined ? isNamed : ({ id }) => isUpTo(id, upTo), at);
		case "unread":
			return withReadState(contents, isNamed, null);
		case "archived":
			return without(contents, isNamed);
		case "unarchived": {
			if (contents.items.some(isNamed))
				return undefined;
			return [...ids].reduce((sum, id) => {
				const item = known(id);
				return sum && item?.key === null ? withItem(sum, { ...item, archived_at: null }) : undefined;
			}, contents);
		}
		case "seen":
		case "replaced":
			return contents;
		default:
			return undefined;
	}
}
function afterAction(contents, action, at) {
	switch (action.kind) {
		case "read":
			return withReadState(contents, ({ id }) => id === action.id, at);
		case "unread":
			return withReadState(contents, ({ id }) => id === action.id, null);
		case "archive":
			return without(contents, ({ id }) => id === action.id);
		case "unarchive": {
			const item = action.item;
			if (item === undefined)
				return contents;
			const listed = withItem(contents, { ...item, archived_at: null });
			return isUnread(item) && listed !== contents ? { ...listed, unread: listed.unread + 1 } : listed;
		}
		case "read-all":
		case "seen": {
			const oldest = contents.items.at(-1);
			if (contents.next !== null && oldest !== undefined && isAfter(oldest.id, action.upTo))
				return contents;
			const later = contents.items.filter((item) => isUnread(item) && isAfter(item.id, action.upTo)).length;
			const unseen = Math.min(contents.unseen, later);
			if (action.kind === "seen")
				return { ...contents, unseen };
			const read = withReadState(contents, ({ id }) => isUpTo(id, action.upTo), at);
			return { ...read, unread: later, unseen };
		}
	}
}
function isOrdered(one, other) {
	if (one.kind === "seen" || other.kind === "seen")
		return false;
	return !("id" in one) || !("id" in other) || one.id === other.id;
}
function saysWhat({ change, ids, up_to: upTo }) {
	return ids !== undefined || upTo !== undefined || change === "replaced";
}
function concerns({ ids, up_to: upTo }, action) {
	if (!("id" in action))
		return true;
	return ids?.includes(action.id) === true || (upTo !== undefined && isUpTo(action.id, upTo));
}
function carriesOut(change, action) {
	const { change: name, up_to: upTo, ids } = change;
	switch (action.kind) {
		case "read":
			return name === "read" && (ids?.includes(action.id) === true || (upTo !== undefined && isUpTo(action.id, upTo)));
		case "unread":
			return name === "unread" && ids?.includes(action.id) === true;
		case "archive":
			return name === "archived" && ids?.includes(action.id) === true;
		case "unarchive":
			return name === "unarchived" && ids?.includes(action.id) === true;
		case "read-all":
			return name === "read" && upTo !== undefined && isUpTo(action.upTo, upTo);
		case "seen":
			return name === "seen" && upTo !== undefined && isUpTo(action.upTo, upTo);
	}
}
// shared.ts
const REPLY_MS = 4000;
const PING_MS = 20_000;
const MAX_KEPT = 1000;
const CONNECTING = { status: "connecting", error: undefined, hello: undefined, isCaughtUp: false };
function afterStatus(progress, status, error) {
	return status === "live" ? { ...progress, status, error } : { ...CONNECTING, status, error };
}
function afterFrame(progress, { event, text }) {
	if (event === "hello")
		return { ...progress, hello: text, isCaughtUp: false };
	return event === "caught_up" ? { ...progress, isCaughtUp: true } : progress;
}
function canShare() {
	if (typeof document === "undefined" || typeof BroadcastChannel !== "function" || navigator.locks === undefined)
		return false;
	try {
		new BroadcastChannel("tidings").close();
		return true;
	}
	catch {
		return false;
	}
}
class SharedFeed {
	cursor;
	#api;
	#options;
	#listener;
	#name;
	#channel;
	#tab = crypto.randomUUID();
	#closed = new AbortController();
	#term;
	#latestTerm;
	#leading;
	#catchUp;
	#replyTimer;
	#gone;
	#followed = CONNECTING;
	#isAlone = false;
	#steppedDown;
	#backoff;
	constructor(api, options, listener) {
		this.#api = api;
		this.#options = options;
		this.#listener = listener;
		this.#backoff = new Backoff(options.maxWaitMs);
		this.cursor = options.cursor;
		this.#name = `tidings ${api.base}`;
		this.#channel = new BroadcastChannel(this.#name);
		this.#channel.onmessage = ({ data }) => this.#hear(data);
		void this.#compete();
		this.#join();
		const { signal } = this.#closed;
		const ping = setInterval(() => this.#checkLeader(false), PING_MS);
		signal.addEventListener("abort", () => clearInterval(ping));
		document.addEventListener("visibilitychange", () => this.#checkLeader(true), { signal });
		addEventListener("online", () => this.#checkLeader(true), { signal });
	}
	hurry() {
		this.#steppedDown?.abort();
		this.#leading?.hurry();
		this.#catchUp?.hurry();
		this.#join(true);
	}
	close() {
		this.#closed.abort();
		clearTimeout(this.#replyTimer);
		this.#steppedDown?.abort();
		this.#endCatchUp();
		this.#leading?.end();
		this.#channel.close();
	}
	async #compete(steal = false) {
		const { signal } = this.#closed;
		const options = steal ? { steal } : { signal };
		try {
			await navigator.locks.request(this.#name, options, () => this.#lead());
		}
		catch (error) {
			this.#leading?.end();
			this.#leading = undefined;
			if (signal.aborted)
				return;
			this.#term = undefined;
			if (error instanceof DOMException && error.name === "AbortError") {
				void this.#compete();
				this.#join();
			}
			else {
				this.#isAlone = true;
				void this.#lead();
			}
		}
	}
	async #lead() {
		if (this.#closed.signal.aborted || this.#leading !== undefined || this.#steppedDown !== undefined)
			return;
		clearTimeout(this.#replyTimer);
		this.#endCatchUp();
		const term = crypto.randomUUID();
		this.#term = term;
		await new Promise((resolve) => {
			const leading = new Leading(term, this.#api, { ...this.#options, cursor: this.cursor }, resolve, {
				onFrame: (frame) => {
					this.#say({ kind: "frame", term, frame });
					this.#takeOwn(frame);
				},
				onStatus: (status, error) => {
					const lacksToken = error?.code === "token_unavailable";
					this.#say({ kind: "status", term, status, error: lacksToken ? undefined : sent(error) });
					if (status === "failed")
						this.close();
					else if (lacksToken && !this.#isAlone)
						void this.#stepDown();
					if (status === "live")
						this.#backoff.reset();
					this.#listener.onStatus(status, error);
				},
			});
			this.#leading = leading;
			this.#say({ kind: "lead", term });
		});
		this.#leading = undefined;
	}
	async #stepDown() {
		const steppedDown = new AbortController();
		this.#steppedDown = steppedDown;
		this.#leading?.end();
		await wait(this.#backoff.next(), steppedDown.signal);
		this.#steppedDown = undefined;
		void this.#compete();
	}
	#say(message) {
		if (!this.#closed.signal.aborted && !this.#isAlone)
			this.#channel.postMessage(message);
	}
	#join(isUrgent = false) {
		if (this.#leading !== undefined || this.#isAlone || this.#closed.signal.aborted)
			return;
		this.#say({ kind: "join", from: this.#tab, isVisible: document.visibilityState === "visible", isUrgent });
		clearTimeout(this.#replyTimer);
		this.#replyTimer = setTimeout(() => {
			if (document.visibilityState === "visible" && this.#steppedDown === undefined)
				void this.#compete(true);
		}, REPLY_MS);
	}
	#checkLeader(isUrgent) {
		if (document.visibilityState !== "visible")
			return;
		if (isUrgent)
			this.#steppedDown?.abort();
		this.#join(isUrgent);
	}
	#hear(message) {
		if (this.#isAlone)
			return;
		switch (message.kind) {
			case "join":
				this.#leading?.welcome(message, (state) => this.#say(state));
				return;
			case "lead":
				this.#latestTerm = message.term;
				this.#join();
				return;
			case "state":
				if (message.to === this.#tab && this.#leading === undefined)
					this.#follow(message);
				return;
		}
		if (message.term !== this.#term || this.#leading !== undefined)
			return;
		if (message.kind === "status")
			this.#hearStatus(message.status, message.error);
		else
			this.#hearFrame(message.frame);
	}
	#hearStatus(status, error) {
		this.#followed = afterStatus(this.#followed, status, error);
		if (this.#catchUp === undefined && (status !== "live" || this.cursor !== undefined))
			this.#reportStatus();
	}
	#hearFrame(frame) {
		this.#followed = afterFrame(this.#followed, frame);
		if (this.#catchUp !== undefined)
			return this.#catchUp.keep(frame);
		if (this.cursor === undefined) {
			if (frame.event === "caught_up")
				this.#begin(JSON.parse(frame.text).cursor);
			return;
		}
		if (frame.event === "hello") {
			const { cursor } = JSON.parse(frame.text);
			if (!isUpTo(cursor, this.cursor))
				this.#fetchMissed(this.cursor, cursor);
			else
				this.#take(helloAt(this.cursor, frame.text));
		}
		else
			this.#take(frame);
	}
	#follow({ term, cursor, status, error, hello, isCaughtUp }) {
		if (this.#latestTerm !== undefined && term !== this.#latestTerm)
			return;
		clearTimeout(this.#replyTimer);
		const isNew = this.#term !== term;
		this.#term = term;
		this.#followed = { status, error, hello, isCaughtUp };
		if (!isNew && this.#catchUp !== undefined)
			return;
		this.#endCatchUp();
		const own = this.cursor;
		if (own === undefined) {
			if (isCaughtUp && cursor !== undefined)
				this.#begin(cursor);
			else if (isNew && status !== "live")
				this.#reportStatus();
		}
		else if (cursor !== undefined && cursor !== this.#gone && !isUpTo(cursor, own))
			this.#fetchMissed(own, cursor);
		else if (isNew)
			this.#begin(own);
	}
	#begin(cursor, kept = []) {
		this.cursor = cursor;
		this.#reportStatus();
		const { hello, isCaughtUp } = this.#followed;
		if (hello !== undefined)
			this.#take(helloAt(cursor, hello));
		for (const frame of kept)
			if (!["hello", "caught_up"].includes(frame.event))
				this.#take(frame);
		if (isCaughtUp)
			this.#take({ event: "caught_up", text: JSON.stringify({ cursor: this.cursor }) });
	}
	#reportStatus() {
		const { status, error } = this.#followed;
		if (status === "live")
			this.#steppedDown?.abort();
		else if (this.#steppedDown !== undefined)
			return;
		this.#listener.onStatus(status === "failed" ? "waiting" : status, received(error));
	}
	#fetchMissed(from, to) {
		const catchUp = new CatchUp(this.#api, { ...this.#options, cursor: from }, {
			onFrame: (frame) => {
				if (frame.event === "notification" || frame.event === "gap")
					this.#takeOwn(frame);
				const cursor = this.cursor ?? from;
				const isThere = frame.event !== "hello" && isUpTo(to, cursor);
				if (!isThere && frame.event === "caught_up")
					this.#gone = to;
				if (isThere || frame.event === "caught_up")
					this.#finishCatchUp(catchUp, cursor);
			},
			onStatus: (status, error) => {
				if (status === "failed")
					this.close();
				if (status !== "live")
					this.#listener.onStatus(status, error);
			},
		});
		this.#catchUp = catchUp;
	}
	#finishCatchUp(catchUp, cursor) {
		if (this.#catchUp !== catchUp)
			return;
		this.#endCatchUp();
		if (catchUp.isComplete)
			this.#begin(cursor, catchUp.kept);
		else {
			this.#term = undefined;
			this.#join();
		}
	}
	#endCatchUp() {
		this.#catchUp?.close();
		this.#catchUp = undefined;
	}
	#take(frame) {
		if (frame.event === "gap" && this.cursor !== undefined) {
			const { to, reason } = JSON.parse(frame.text);
			const order = compareIds(to, this.cursor);
			const leadsBack = to === ORIGIN || reason === "ahead";
			if (order === 0 || (order !== undefined && order < 0 && !leadsBack))
				return;
		}
		this.#takeOwn(frame);
	}
	#takeOwn(frame) {
		handOver(this, frame, () => this.#listener.onFrame(frame));
	}
}
class Leading {
	#term;
	#connection;
	#release;
	#progress = CONNECTING;
	constructor(term, api, options, release, listener) {
		this.#term = term;
		this.#release = release;
		this.#connection = new Connection(api, options, {
			onFrame: (frame) => {
				this.#progress = afterFrame(this.#progress, frame);
				listener.onFrame(frame);
			},
			onStatus: (status, error) => {
				this.#progress = afterStatus(this.#progress, status, sent(error));
				listener.onStatus(status, error);
			},
		});
	}
	welcome({ from, isVisible, isUrgent }, say) {
		if (isVisible)
			this.#connection.look();
		if (isUrgent)
			this.hurry();
		say({ kind: "state", to: from, term: this.#term, cursor: this.#connection.cursor, ...this.#progress });
	}
	hurry() {
		this.#connection.hurry();
	}
	end() {
		this.#connection.close();
		this.#release();
	}
}
class CatchUp {
	kept = [];
	isComplete = true;
	#connection;
	constructor(api, options, listener) {
		this.#connection = new Connection(api, options, listener);
	}
	keep(frame) {
		if (this.kept.length < MAX_KEPT)
			this.kept.push(frame);
		else
			this.isComplete = false;
	}
	hurry() {
		this.#connection.hurry();
	}
	close() {
		this.#connection.close();
	}
}
function helloAt(cursor, text) {
	return { event: "hello", text: JSON.stringify({ ...helloOf(text), cursor }) };
}
function sent(error) {
	if (error === undefined)
		return undefined;
	const { message, code, status, field, requestId, retryAfterMs } = error;
	return { message, code, status, field, requestId, retryAfterMs };
}
function received(error) {
	return error && new TidingsError(error.message, error);
}
// stream.ts
const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
function isStart(since) {
	if (typeof since !== "string")
		return false;
	if (["now", "start", "undelivered"].includes(since))
		return true;
	const known = since.toUpperCase().replace(" ", "T").replace(/:60(?=[.Z+-])/, ":59");
	return TIME.test(since) && !Number.isNaN(Date.parse(known));
}
class Stream {
	#api;
	#connection;
	#options;
	#closed = new AbortController();
	#feed;
	#status = "connecting";
	constructor(api, connection, options) {
		const handlers = ["onNotification", "onGap", "onChange", "onHello", "onCaughtUp", "onStatus"];
		expectOptions(options, "cursor", "since", ...handlers);
		expectHandlers(options, ...handlers);
		const { cursor, since } = options;
		expect("cursor", cursor === undefined || (typeof cursor === "string" && cursor !== ""), "the id of an event", cursor);
		expect("since", since === undefined || isStart(since), "now, start, undelivered or a time in RFC 3339", since);
		this.#api = api;
		this.#connection = connection;
		this.#options = options;
		this.#feed = this.#open(options.cursor);
		queueMicrotask(() => {
			if (this.#status === "connecting")
				this.#call(() => options.onStatus?.("connecting"));
		});
		if (typeof document !== "undefined")
			this.#followPage();
	}
	get status() {
		return this.#status;
	}
	get cursor() {
		return this.#feed.cursor;
	}
	retry() {
		this.#feed.hurry();
	}
	close() {
		if (this.#closed.signal.aborted)
			return;
		this.#setStatus("closed");
		this.#closed.abort();
		this.#feed.close();
	}
	#open(cursor) {
		const { share, ...connection } = this.#connection;
		const { since = "now" } = this.#options;
		const isComparable = cursor !== undefined || since === "now";
		const FeedClass = share && isComparable && canShare() ? SharedFeed : Connection;
		return new FeedClass(this.#api, { ...connection, cursor, since: cursor === undefined ? since : undefined }, {
			onFrame: (frame) => this.#take(frame),
			onStatus: (status, error) => this.#setStatus(status, error),
		});
	}
	#followPage() {
		const { signal } = this.#closed;
		let isAway = false;
		const leave = () => {
			isAway = true;
			this.#feed.close();
		};
		const comeBack = () => {
			if (!isAway || this.#status === "failed")
				return;
			isAway = false;
			this.#feed = this.#open(this.#feed.cursor ?? this.#options.cursor);
			this.#setStatus("waiting");
		};
		addEventListener("pagehide", leave, { signal });
		addEventListener("pageshow", comeBack, { signal });
		document.addEventListener("freeze", leave, { signal });
		document.addEventListener("resume", comeBack, { signal });
	}
	#setStatus(status, error) {
		if (this.#closed.signal.aborted)
			return;
		if (status === this.#status && error === undefined)
			return;
		this.#status = status;
		this.#call(() => this.#options.onStatus?.(status, error));
	}
	#take({ event, text }) {
		const { onNotification, onGap, onChange, onHello, onCaughtUp } = this.#options;
		switch (event) {
			case "notification":
				if (onNotification)
					this.#call(() => onNotification(notificationOf(text)));
				return;
			case "gap":
				if (onGap)
					this.#call(() => onGap(JSON.parse(text)));
				return;
			case "changed":
				if (onChange)
					this.#call(() => onChange(JSON.parse(text)));
				return;
			case "hello":
				if (onHello)
					this.#call(() => onHello(helloOf(text)));
				return;
			case "caught_up":
				if (onCaughtUp)
					this.#call(onCaughtUp);
		}
	}
	#call(handler) {
		if (this.#closed.signal.aborted)
			return;
		try {
			handler();
		}
		catch (error) {
			reportUncaught(error);
		}
	}
}
// inbox.ts
const MAX_ITEMS = 1000;
const MAX_LIMIT = 1000;
const MAX_ARCHIVED = 100;
const REPORT_MS = 3000;
const CALL_MS = 50;
class Inbox {
	#client;
	#options;
	#limit;
	#stream;
	#closed = new AbortController();
	#listeners = new Set();
	#contents;
	#pending = [];
	#requests = new Map();
	#reportTimers = new Set();
	#recordings = new Set();
	#archived = new Map();
	#maxItems = MAX_ITEMS;
	#isStale = false;
	#isReloading = false;
	#backoff = new Backoff(30_000);
	#retryWait;
	#hellos = 0;
	#isBacklog = true;
	#loadingMore;
	#waiting = new Set();
	#status = "connecting";
	#streamError;
	#listError;
	#state;
	#calledAt = -Infinity;
	#isCalling = false;
	#callTimer;
	constructor(client, options = {}) {
		const handlers = ["onNotification", "onCaughtUp", "onGap"];
		expectOptions(options, "limit", ...handlers);
		expectHandlers(options, ...handlers);
		const { limit = 50 } = options;
		expect("limit", Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT, "a whole number from 1 to 1000", limit);
		this.#client = client;
		this.#options = options;
		this.#limit = limit;
		this.#stream = client.stream({
			onHello: () => {
				this.#hellos += 1;
				this.#backoff.reset();
				this.#retryWait?.abort();
				this.#reloadAll();
			},
			onNotification: (notification) => this.#takeNotification(notification),
			onCaughtUp: () => {
				this.#isBacklog = false;
				this.#options.onCaughtUp?.();
			},
			onChange: (change) => this.#takeChange(change),
			onGap: (gap) => {
				this.#reload();
				this.#options.onGap?.(gap);
			},
			onStatus: (status, error) => this.#takeStatus(status, error),
		});
	}
	get state() {
		return (this.#state ??= this.#view());
	}
	subscribe = (listener) => {
		expect("listener", typeof listener === "function", "a function", listener);
		this.#listeners.add(listener);
		return () => void this.#listeners.delete(listener);
	};
	loadMore() {
		this.#loadingMore ??= this.#loadNextPage().finally(() => {
			this.#loadingMore = undefined;
			this.#trim();
		});
		return this.#loadingMore;
	}
	markRead(id) {
		return this.#act({ kind: "read", id }, () => this.#client.markRead(id));
	}
	markUnread(id) {
		return this.#act({ kind: "unread", id }, () => this.#client.markUnread(id));
	}
	archive(id) {
		const item = this.#contents?.items.find((item) => item.id === id);
		if (item !== undefined)
			this.#remember([item]);
		return this.#act({ kind: "archive", id }, () => this.#client.archive(id));
	}
	unarchive(id) {
		const item = this.#archived.get(id);
		return this.#act({ kind: "unarchive", id, item }, () => this.#client.unarchive(id));
	}
	async markAllRead() {
		const { cursor: upTo } = this.#contents ?? (await this.#firstContents());
		await this.#act({ kind: "read-all", upTo }, () => this.#client.markAllRead(upTo));
	}
	async markSeen() {
		const { cursor: upTo } = this.#contents ?? (await this.#firstContents());
		await this.#act({ kind: "seen", upTo }, () => this.#client.markSeen(upTo));
	}
	retry() {
		this.#stream.retry();
		if (this.#listError?.retryAfterMs === undefined)
			this.#retryWait?.abort();
	}
	close() {
		this.#stream.close();
		this.#state = this.#view();
		this.#closed.abort();
		if (this.#callTimer !== undefined && !this.#isCalling)
			queueMicrotask(() => this.#callListeners());
		clearTimeout(this.#callTimer);
		this.#retryWait?.abort();
		this.#wake();
		for (const timer of this.#reportTimers)
			clearTimeout(timer);
	}
	#takeStatus(status, error) {
		this.#status = status;
		if (status !== "live")
			this.#isBacklog = true;
		this.#streamError = status === "live" ? undefined : (error ?? this.#streamError);
		if ((status === "waiting" || status === "failed") && this.#contents === undefined)
			this.#reload();
		this.#wake();
		this.#publish();
	}
	#takeNotification(notification) {
		for (const recording of this.#recordings)
			recording.push(notification);
		if (this.#contents !== undefined)
			this.#apply(afterNotification(this.#contents, notification));
		this.#options.onNotification?.(notification, { isBacklog: this.#isBacklog });
	}
	#takeChange(change) {
		for (const recording of this.#recordings)
			recording.push(change);
		this.#pending = this.#pending.filter(({ action }) => !carriesOut(change, action));
		for (const pending of this.#pending)
			pending.isUncertain ||= concerns(change, pending.action);
		if (!saysWhat(change))
			return this.#reloadAll();
		if (this.#contents === undefined)
			return;
		this.#updateArchived(change);
		if (change.change === "archived") {
			for (const id of change.ids ?? [])
				this.#archived.delete(id);
			this.#remember(this.#contents.items.filter(({ id }) => change.ids?.includes(id)));
		}
		this.#apply(afterChange(this.#contents, change, now(), (id) => this.#archived.get(id)));
	}
	#reloadAll() {
		this.#archived.clear();
		for (const pending of this.#pending)
			pending.isUncertain = true;
		this.#reload();
	}
	#apply(contents) {
		if (contents === undefined)
			return this.#reload();
		this.#contents = contents;
		this.#trim();
		this.#publish();
	}
	#trim() {
		if (this.#contents === undefined || this.#loadingMore !== undefined)
			return;
		const contents = trimmed(this.#contents, this.#maxItems);
		if (contents === this.#contents)
			return;
		this.#contents = contents;
		this.#publish();
	}
	#remember(items) {
		if (this.#isReloading)
			return;
		for (const item of items)
			this.#archived.set(item.id, item);
		for (const id of this.#archived.keys()) {
			if (this.#archived.size <= MAX_ARCHIVED)
				break;
			this.#archived.delete(id);
		}
	}
	#updateArchived({ change, ids = [] }) {
		if (change !== "read" && change !== "unread")
			return;
		for (const id of ids) {
			const item = this.#archived.get(id);
			if (item !== undefined)
				this.#archived.set(id, { ...item, read_at: change === "read" ? (item.read_at ?? now()) : null });
		}
	}
	#reload() {
		this.#isStale = true;
		if (!this.#isReloading)
			void this.#reloadUntilFresh();
	}
	async #reloadUntilFresh() {
		const { signal } = this.#closed;
		this.#isReloading = true;
		while (this.#isStale && !signal.aborted) {
			this.#isStale = false;
			const done = this.#pending.filter(({ isDone }) => isDone);
			const recording = [];
			this.#recordings.add(recording);
			const hellos = this.#hellos;
			try {
				const contents = await this.#listAgain();
				if (signal.aborted)
					return;
				this.#contents = contents;
				this.#pending = this.#pending.filter((pending) => !done.includes(pending));
				for (const happened of recording)
					this.#replay(happened);
				this.#listError = undefined;
				this.#backoff.reset();
			}
			catch (thrown) {
				if (signal.aborted)
					return;
				const error = asTidingsError(thrown);
				this.#listError = error;
				this.#publish();
				if (error.isRetryable) {
					this.#isStale = true;
					this.#retryWait = new AbortController();
					const hint = hellos === this.#hellos ? error.retryAfterMs : undefined;
					await wait(this.#backoff.next(hint), this.#retryWait.signal);
				}
			}
			finally {
				this.#recordings.delete(recording);
			}
			this.#publish();
		}
		this.#isReloading = false;
		this.#wake();
	}
	async #firstContents() {
		for (;;) {
			this.#expectOpen();
			if (this.#contents !== undefined)
				return this.#contents;
			const failure = this.#listError ?? (this.#status === "failed" ? this.#streamError : undefined);
			if (failure !== undefined && !this.#isReloading)
				throw failure;
			await new Promise((resolve) => this.#waiting.add(resolve));
		}
	}
	#wake() {
		for (const look of this.#waiting)
			look();
		this.#waiting.clear();
	}
	#expectOpen() {
		if (this.#closed.signal.aborted)
			throw new TidingsError("the inbox was closed", { code: "closed" });
	}
	async #listAgain() {
		const shown = () => this.#contents?.items.length ?? 0;
		const first = { limit: Math.min(Math.max(shown(), this.#limit), MAX_LIMIT) };
		let contents = ofPage(await this.#client.list(first));
		while (contents.next !== null && contents.items.length < shown() && !this.#closed.signal.aborted) {
			const query = { limit: Math.min(shown() - contents.items.length, MAX_LIMIT), cursor: contents.next };
			const { data, next } = await this.#client.list(query);
			contents = { ...contents, items: [...contents.items, ...data], next };
		}
		return contents;
	}
	#replay(happened) {
		if (this.#contents === undefined)
			return;
		const next = "change" in happened
			? afterChange(this.#contents, happened, now(), (id) => this.#archived.get(id))
			: afterNotification(this.#contents, happened);
		if (next === undefined)
			this.#isStale = true;
		else
			this.#contents = next;
	}
	async #loadNextPage() {
		await this.#firstContents();
		while (!(await this.#addNextPage()))
			;
	}
	async #addNextPage() {
		const cursor = this.#contents?.next ?? null;
		if (cursor === null)
			return true;
		const recording = [];
		this.#recordings.add(recording);
		try {
			const page = await this.#client.list({ limit: this.#limit, cursor });
			this.#expectOpen();
			const contents = this.#contents;
			if (contents?.next !== cursor)
				return false;
			const longer = withNextPage(contents, page, recording, now());
			if (longer === undefined)
				return false;
			this.#maxItems = Math.max(MAX_ITEMS, longer.items.length);
			this.#apply(longer);
			return true;
		}
		finally {
			this.#recordings.delete(recording);
		}
	}
	async #act(action, request) {
		if ("id" in action)
			expectEventId("id", action.id);
		const before = [...this.#requests].filter(([, earlier]) => isOrdered(earlier, action)).map(([response]) => response);
		const response = before.length === 0 ? request() : Promise.allSettled(before).then(request);
		this.#requests.set(response, action);
		const pending = { action, isDone: false, isUncertain: false };
		this.#pending = [...this.#pending, pending];
		this.#publish();
		const settle = () => {
			this.#pending = this.#pending.filter((other) => other !== pending);
			this.#publish();
		};
		try {
			await response;
		}
		catch (error) {
			settle();
			throw error;
		}
		finally {
			this.#requests.delete(response);
		}
		if (this.#closed.signal.aborted)
			return;
		pending.isDone = true;
		if (this.#contents === undefined || changesNothing(this.#contents, action))
			return settle();
		if (pending.isUncertain)
			return this.#reload();
		const timer = setTimeout(() => {
			this.#reportTimers.delete(timer);
			if (this.#pending.includes(pending))
				this.#reload();
		}, REPORT_MS);
		this.#reportTimers.add(timer);
	}
	#publish() {
		if (this.#closed.signal.aborted)
			return;
		this.#state = undefined;
		if (this.#isCalling)
			return;
		const ms = this.#calledAt + CALL_MS - performance.now();
		if (ms > 0) {
			this.#callTimer ??= setTimeout(() => this.#callListeners(), ms);
			return;
		}
		this.#isCalling = true;
		queueMicrotask(() => this.#callListeners());
	}
	#callListeners() {
		clearTimeout(this.#callTimer);
		this.#callTimer = undefined;
		this.#isCalling = false;
		this.#calledAt = performance.now();
		const { state } = this;
		for (const listener of this.#listeners) {
			try {
				listener(state);
			}
			catch (error) {
				reportUncaught(error);
			}
		}
	}
	#view() {
		const status = this.#status;
		const error = this.#listError ?? this.#streamError;
		if (this.#contents === undefined) {
			return { status, isLoading: true, items: [], unread: 0, unseen: 0, hasMore: false, error };
		}
		const at = now();
		const contents = this.#pending.reduce((sum, { action }) => afterAction(sum, action, at), this.#contents);
		const { items, unread, unseen, next } = contents;
		return { status, isLoading: false, items, unread, unseen, hasMore: next !== null, error };
	}
}
const now = () => new Date().toISOString();
function changesNothing(contents, action) {
	const after = afterAction(contents, action, now());
	const { items, unread, unseen } = contents;
	return after.items === items && after.unread === unread && after.unseen === unseen;
}
// client.ts
function ownUrl() {
	const { url } = import.meta;
	return /^https?:/.test(url) ? new URL(".", url).href : undefined;
}
const CREDENTIALS = ["same-origin", "include", "omit"];
function isAddress(url) {
	try {
		if (typeof url !== "string" || /[?#\s]/.test(url))
			return false;
		const { protocol, username, password } = new URL(url);
		return /^https?:$/.test(protocol) && username === "" && password === "";
	}
	catch {
		return false;
	}
}
function isUser(name) {
	if (typeof name !== "string" || ["", ".", ".."].includes(name) || /^\p{White_Space}|\p{White_Space}$/u.test(name))
		return false;
	if (/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.test(name))
		return false;
	return new TextEncoder().encode(name).length <= 255;
}
class Tidings {
	user;
	#api;
	#connection;
	constructor(options) {
		expectOptions(options, "user", "url", "token", "transport", "share", "credentials", "maxWaitMs");
		const { user, token, url = ownUrl(), transport = "sse", share = true, credentials = "same-origin", maxWaitMs = 30_000 } = options;
		expect("user", isUser(user), "the name of a user: 1 to 255 bytes, no control characters, no space at either end, not `.` or `..`", user);
		expect("url", url !== undefined && isAddress(url), "the address of a Tidings server, with http or https, and without a query, a password or spaces", url);
		expect("token", token === undefined || typeof token === "function", "a function that returns a token", typeof token);
		expect("transport", TRANSPORTS.includes(transport), TRANSPORTS.join(" or "), transport);
		expect("share", typeof share === "boolean", "true or false", share);
		expect("credentials", CREDENTIALS.includes(credentials), CREDENTIALS.join(", "), credentials);
		expect("maxWaitMs", typeof maxWaitMs === "number" && maxWaitMs > 0, "a number of milliseconds", maxWaitMs);
		this.user = user;
		this.#api = new Api({ url, user, tokens: new Tokens(token), credentials });
		this.#connection = { transport, share, maxWaitMs };
	}
	now() {
		return this.#api.clock.now();
	}
	stream(options = {}) {
		return new Stream(this.#api, this.#connection, options);
	}
	inbox(options = {}) {
		return new Inbox(this, options);
	}
	async list(query = {}) {
		const parameters = new URLSearchParams();
		for (const [name, value] of Object.entries(query))
			if (value !== undefined)
				parameters.set(name, String(value));
		return this.#api.call("GET", `notifications?${parameters}`, (text) => pageOf(text));
	}
	counts() {
		return this.#api.call("GET", "notifications/unread-count", (countsOf));
	}
	markRead(id) {
		return this.#changeOne(id, "read");
	}
	markUnread(id) {
		return this.#changeOne(id, "unread");
	}
	archive(id) {
		return this.#changeOne(id, "archive");
	}
	unarchive(id) {
		return this.#changeOne(id, "unarchive");
	}
	markAllRead(upTo) {
		return this.#change("read-all", upTo);
	}
	markSeen(upTo) {
		return this.#change("seen", upTo);
	}
	async #changeOne(id, what) {
		expectEventId("id", id);
		return this.#change(`${id}/${what}`);
	}
	async #change(path, upTo) {
		if (upTo !== undefined)
			expectEventId("upTo", upTo);
		const body = upTo === undefined ? undefined : { up_to: upTo };
		return this.#api.call("POST", `notifications/${path}`, (countsOf), body);
	}
}
// display.ts
const MAX_ACTIONS = 3;
const MAX_TEXT = 2000;
function safeUrl(value, base) {
	if (typeof value !== "string" || value.trim() === "")
		return undefined;
	try {
		const url = new URL(value, base);
		return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : undefined;
	}
	catch {
		return undefined;
	}
}
function text(value) {
	if (typeof value === "number" || typeof value === "boolean")
		return String(value);
	if (typeof value !== "string")
		return undefined;
	const trimmed = value.trim();
	if (trimmed === "")
		return undefined;
	return trimmed.length > MAX_TEXT ? `${trimmed.slice(0, MAX_TEXT)}…` : trimmed;
}
function iconOf(value, base) {
	const icon = text(value);
	if (icon === undefined)
		return undefined;
	if (/^(https?:|\/|\.)/i.test(icon)) {
		const url = safeUrl(icon, base);
		return url === undefined ? undefined : { url };
	}
	const isShort = [...icon].length <= 2 || (icon.length <= 16 && !/[\p{L}\p{N}]/u.test(icon));
	return isShort ? { text: icon } : undefined;
}
function displayOf({ payload, payload_text: payloadText, type }, base = pageAddress()) {
	const isObject = typeof payload === "object" && payload !== null && !Array.isArray(payload);
	const fields = isObject ? payload : {};
	const member = (name) => (typeof fields[name] === "number" ? memberText(payloadText, name) : text(fields[name]));
	const title = member("title");
	const body = member("body") ?? member("message") ?? member("text");
	const shown = {
		url: safeUrl(fields["url"], base),
		icon: iconOf(fields["icon"], base),
		actions: actionsOf(fields["actions"], base),
		isRaw: false,
	};
	if (title !== undefined)
		return { title, body, ...shown };
	if (body !== undefined)
		return { title: body, body: undefined, ...shown };
	const whole = typeof payload === "string" ? text(payload) : undefined;
	if (whole !== undefined)
		return { title: whole, body: undefined, ...shown };
	return { title: type, body: payload === null ? undefined : text(payloadText), ...shown, isRaw: true };
}
function actionsOf(value, base) {
	if (!Array.isArray(value))
		return [];
	const actions = value.flatMap((action) => {
		const { label, url } = (action ?? {});
		const [shown, safe] = [text(label), safeUrl(url, base)];
		return shown !== undefined && safe !== undefined ? [{ label: shown, url: safe }] : [];
	});
	return actions.slice(0, MAX_ACTIONS);
}
function pageAddress() {
	return typeof document === "undefined" ? "about:blank" : document.baseURI;
}
function pageLanguage() {
	try {
		return Intl.getCanonicalLocales(document.documentElement.lang)[0];
	}
	catch {
		return undefined;
	}
}
const DAY_MS = 86_400_000;
function dayOf(date) {
	return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / DAY_MS;
}
function ago(timestamp, now, language, clock) {
	const date = new Date(timestamp);
	const seconds = (clock - date.getTime()) / 1000;
	if (seconds < 45)
		return now;
	const today = new Date(clock);
	if (clock - date.getTime() > 7 * DAY_MS) {
		const isThisYear = date.getFullYear() === today.getFullYear();
		const year = isThisYear ? {} : { year: "numeric" };
		return date.toLocaleDateString(language, { day: "numeric", month: "short", ...year });
	}
	const format = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
	const days = dayOf(today) - dayOf(date);
	if (days > 0 && seconds >= 18 * 3600)
		return format.format(-days, "day");
	if (seconds >= 45 * 60)
		return format.format(-Math.max(1, Math.round(seconds / 3600)), "hour");
	return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
}
// dom.ts
function make(name, attributes = {}, ...children) {
	const element = document.createElement(name);
	for (const [attribute, value] of Object.entries(attributes)) {
		if (value !== undefined && value !== false)
			element.setAttribute(attribute, value === true ? "" : String(value));
	}
	element.append(...children);
	return element;
}
const PATHS = {
	bell: "M12 3.5a5.75 5.75 0 0 0-5.75 5.75v3.4L4.6 15.7a.75.75 0 0 0 .67 1.1h13.46a.75.75 0 0 0 .67-1.1l-1.65-3.05v-3.4A5.75 5.75 0 0 0 12 3.5ZM9.75 19.7a2.4 2.4 0 0 0 4.5 0",
	check: "M5 12.6 9.6 17 19 7.4",
	dot: "M12 8.2a3.8 3.8 0 1 0 0 7.6 3.8 3.8 0 0 0 0-7.6Z",
	archive: "M4 5.25h16v4H4zM5.5 9.25v9.5h13v-9.5M9.75 13h4.5",
	close: "m6.5 6.5 11 11m0-11-11 11",
	checks: "M2.5 12.8 6.6 17l8-8.6M12.4 15.4 14 17l7.5-8.6",
};
function icon(name) {
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
	path.setAttribute("d", PATHS[name]);
	svg.append(path);
	return svg;
}
// labels.ts
const ENGLISH = {
	notifications: "Notifications",
	unseen: (count) => (count === 0 ? "no new ones" : `${count} new`),
	markAllRead: "Mark all as read",
	markRead: "Mark as read",
	markUnread: "Mark as unread",
	archive: "Archive",
	archived: "Archived.",
	undo: "Undo",
	close: "Close",
	loadMore: "Show older",
	loading: "Loading",
	unread: "Unread.",
	now: "now",
	empty: "You are up to date",
	emptyHint: "New notifications appear here.",
	arrived: (title) => `New notification: ${title}`,
	arrivedMany: (count) => `${count} new notifications`,
	connecting: "Connecting. The list may be out of date.",
	reconnecting: "Connecting again. The list may be out of date.",
	unreachable: "The notifications cannot be loaded at the moment. The next try follows soon.",
	signedOut: "You are signed out. Sign in again to see your notifications.",
	forbidden: "These notifications are not yours to see.",
	tooManyRequests: "Too many requests. The next try follows soon.",
	failed: "The notifications cannot be loaded.",
	retry: "Try again",
	trying: "Trying …",
	notDone: "That did not work. Please try again.",
	gap: "Some older notifications are no longer kept.",
};
// element-row.ts
const MIDDLE_BUTTON = 1;
class Row {
	element;
	#notification;
	#labels;
	#time;
	#toggle = make("button", { type: "button" });
	#unread;
	constructor(notification, labels, now, listener) {
		this.#notification = notification;
		this.#labels = labels;
		const { title, body, url, icon: image, actions } = displayOf(notification);
		const [unreadId, titleId, bodyId, timeId] = ["unread", "title", "body", "time"].map((part) => `${part}-${notification.id}`);
		const open = (event) => listener.onOpen(this.#notification, event);
		const follow = (link) => {
			link.addEventListener("click", open);
			link.addEventListener("auxclick", ({ button }) => {
				if (button === MIDDLE_BUTTON)
					listener.onOpenElsewhere(this.#notification);
			});
		};
		this.#unread = make("span", { class: "hidden-text", id: unreadId });
		const nameOf = { class: "title", id: titleId, dir: "auto" };
		const name = url === undefined ? make("span", nameOf, title) : make("a", { ...nameOf, href: url }, title);
		if (url !== undefined)
			follow(name);
		const content = make("div", {}, this.#unread, name);
		if (body !== undefined)
			content.append(make("div", { class: "body", id: bodyId, dir: "auto" }, body));
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
		const said = { "aria-labelledby": `${unreadId} ${titleId} ${timeId}`, "aria-describedby": body === undefined ? undefined : bodyId };
		this.element = make("li", { ...said, "data-id": notification.id }, pictureOf(image, title), content, side);
		this.element.addEventListener("click", (event) => {
			const path = event.composedPath();
			const inside = path.slice(0, path.indexOf(this.element));
			const isElsewhere = !inside.some((node) => node instanceof HTMLAnchorElement || node instanceof HTMLButtonElement);
			if (isElsewhere)
				open(event);
		});
		this.reach(false);
		this.#show();
		this.tick(now);
	}
	reach(isReached) {
		for (const part of [this.element, ...this.element.querySelectorAll("a, button")])
			part.tabIndex = isReached ? 0 : -1;
	}
	update(notification) {
		if (notification === this.#notification)
			return;
		this.#notification = notification;
		this.#show();
	}
	tick(now) {
		const { timestamp } = this.#notification;
		const language = pageLanguage();
		const date = new Date(timestamp);
		this.#time.textContent = ago(timestamp, this.#labels.now, language, now);
		this.#time.title = date.toLocaleString(language);
	}
	#show() {
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
function pictureOf(image, title) {
	const [letter = ""] = title.match(/[\p{L}\p{N}]/u) ?? [];
	const place = make("div", { class: "icon", "aria-hidden": "true" });
	const showLetter = () => place.replaceChildren(letter === "" ? icon("bell") : letter.toUpperCase());
	if (image === undefined)
		showLetter();
	else if ("text" in image)
		place.append(image.text);
	else {
		const picture = make("img", { alt: "", loading: "lazy", decoding: "async", referrerpolicy: "no-referrer" });
		picture.addEventListener("error", showLetter);
		picture.src = image.url;
		place.append(picture);
	}
	return place;
}
// element-style.ts
const STYLE = `
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
// element.ts
const UNDO_MS = 8000;
const TICK_MS = 30_000;
const SEEN_MS = 1000;
const Base = globalThis.HTMLElement ?? class {
};
class TidingsInboxElement extends Base {
	static observedAttributes = ["user", "server", "token-url"];
	#token;
	#labels = ENGLISH;
	#client;
	#inbox;
	#unsubscribe;
	#parts;
	#rows = new Map();
	#reached;
	#arrived;
	#unsaid = 0;
	#ticking;
	#undoTimer;
	#badge = 0;
	#reported;
	#wasLive = false;
	#tried;
	#hasGap = false;
	#seen;
	#seeing;
	get token() {
		return this.#token;
	}
	set token(token) {
		const hadToken = this.#token !== undefined;
		this.#token = token;
		const isAnother = hadToken !== (token !== undefined);
		if (isAnother || this.#inbox === undefined || this.#lacksToken)
			this.#restart();
	}
	get #lacksToken() {
		const { status, error } = this.#inbox?.state ?? {};
		return status === "failed" && error?.code === "unauthorized";
	}
	get labels() {
		return this.#labels;
	}
	set labels(labels) {
		const before = this.#labels;
		const given = Object.entries(labels ?? {}).filter(([, text]) => text !== undefined);
		this.#labels = { ...ENGLISH, ...Object.fromEntries(given) };
		if (this.#parts === undefined)
			return;
		const names = Object.keys(ENGLISH);
		if (names.every((name) => this.#labels[name] === before[name] || typeof before[name] === "function")) {
			this.#showBadgeOf(this.#inbox?.state);
			return;
		}
		const wasOpen = this.#isOpen;
		this.#stop();
		this.#onToggle(false);
		this.#build();
		if (this.isConnected)
			this.#start();
		if (wasOpen)
			this.open();
	}
	get inbox() {
		return this.#inbox;
	}
	connectedCallback() {
		for (const name of ["token", "labels"]) {
			if (!Object.hasOwn(this, name))
				continue;
			const value = this[name];
			delete this[name];
			Object.assign(this, { [name]: value });
		}
		if (this.#parts === undefined)
			this.#build();
		this.#start();
	}
	disconnectedCallback() {
		this.#stop();
		this.#onToggle(false);
	}
	attributeChangedCallback(_name, before, after) {
		if (before !== after)
			this.#restart();
	}
	#restart() {
		if (!this.isConnected || this.#parts === undefined)
			return;
		this.#stop();
		this.#start();
	}
	#start() {
		const user = this.getAttribute("user");
		if (this.#inbox !== undefined)
			return;
		if (user === null || user === "")
			return this.#fail(new TypeError("<tidings-inbox> needs the attribute `user`"));
		const server = this.getAttribute("server");
		const tokenUrl = this.getAttribute("token-url");
		const source = this.#token ?? (tokenUrl === null ? undefined : () => fetchToken(tokenUrl));
		const token = source === undefined ? undefined : () => (this.#token ?? source)();
		try {
			this.#client = new Tidings({
				user,
				...(token === undefined ? {} : { token }),
				...(server === null ? {} : { url: new URL(server, document.baseURI).href }),
			});
			this.#inbox = this.#client.inbox({
				onNotification: (notification, { isBacklog }) => this.#takeArrived(notification, isBacklog),
				onCaughtUp: () => this.#announce(),
				onGap: () => this.#showGap(),
			});
		}
		catch (error) {
			return this.#fail(error);
		}
		this.#unsubscribe = this.#inbox.subscribe((state) => this.#show(state));
		this.#show(this.#inbox.state);
	}
	#stop() {
		this.#unsubscribe?.();
		this.#inbox?.close();
		this.#inbox = undefined;
		this.#reported = undefined;
		this.#wasLive = false;
		this.#tried = undefined;
		this.#seen = undefined;
		this.#arrived = undefined;
		this.#unsaid = 0;
		this.#hasGap = false;
		clearTimeout(this.#undoTimer);
		const parts = this.#parts;
		if (parts === undefined)
			return;
		const { list, announcer, doneText } = parts;
		if (list.contains(this.shadowRoot?.activeElement ?? null))
			parts.panel.focus();
		list.replaceChildren();
		this.#rows.clear();
		this.#reached = undefined;
		announcer.textContent = doneText.textContent = "";
		this.#showBadge(undefined);
		this.#showNotice();
		for (const name of ["done", "markAll", "more", "empty", "loading"])
			this.#hide(parts[name]);
	}
	#fail(error) {
		this.#showNotice(this.#labels.failed);
		console.error(error);
	}
	#build() {
		const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
		const sheet = new CSSStyleSheet();
		sheet.replaceSync(STYLE);
		root.adoptedStyleSheets = [sheet];
		const labels = this.#labels;
		const badge = make("span", { class: "badge", part: "badge", "aria-hidden": "true", hidden: true });
		const bell = make("button", { class: "bell", part: "bell", type: "button", "aria-haspopup": "dialog" }, icon("bell"), badge);
		const markAll = make("button", { class: "tool mark-all", type: "button" }, icon("checks"), labels.markAllRead);
		const close = make("button", { class: "tool close", type: "button", "aria-label": labels.close }, icon("close"));
		const list = make("ul", { role: "list", "aria-label": labels.notifications });
		const empty = make("div", { class: "empty", hidden: true }, icon("bell"), make("strong", {}, labels.empty), labels.emptyHint);
		const loading = make("div", { role: "status", "aria-label": labels.loading, hidden: true });
		for (let rows = 0; rows < 3; rows += 1) {
			loading.append(make("div", { class: "skeleton" }, make("i"), make("div", {}, make("b"), make("b"))));
		}
		const more = make("button", { class: "more", type: "button", hidden: true }, labels.loadMore);
		const scroll = make("div", { class: "scroll" }, list, empty, loading, more);
		const noticeText = make("span");
		const noticeAction = make("button", { type: "button", hidden: true });
		const notice = make("div", { class: "notice", role: "alert", hidden: true }, noticeText, noticeAction);
		const doneText = make("span");
		const doneAction = make("button", { type: "button", hidden: true });
		const done = make("div", { class: "notice done", role: "status", hidden: true }, doneText, doneAction);
		const header = make("header", {}, make("h2", {}, labels.notifications), markAll, close);
		const panel = make("div", { class: "panel", part: "panel", popover: "auto", role: "dialog", tabindex: -1, "aria-label": labels.notifications }, header, notice, scroll, done);
		const announcer = make("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
		bell.popoverTargetElement = panel;
		close.addEventListener("click", () => panel.hidePopover());
		markAll.addEventListener("click", () => this.#do((inbox) => inbox.markAllRead()));
		more.addEventListener("click", () => this.#do((inbox) => inbox.loadMore()));
		panel.addEventListener("beforetoggle", ({ newState }) => {
			if (newState === "open" && this.#inbox !== undefined)
				this.#showList(this.#inbox.state);
		});
		panel.addEventListener("toggle", () => {
			const isOpen = this.#isOpen;
			this.#onToggle(isOpen);
			const { activeElement } = document;
			if (!isOpen && (activeElement === document.body || activeElement === this))
				bell.focus({ preventScroll: true });
		});
		panel.addEventListener("keydown", (event) => this.#onKey(event));
		root.replaceChildren(bell, announcer, panel);
		this.#parts = {
			bell, badge, markAll, list, empty, loading, more, notice, noticeText, noticeAction,
			done, doneText, doneAction, panel, announcer,
		};
		this.#showBadge(undefined);
	}
	open() {
		if (this.isConnected)
			this.#parts?.panel.showPopover();
	}
	close() {
		this.#parts?.panel.hidePopover();
	}
	#onToggle(isOpen) {
		const { panel, bell } = this.#parts ?? {};
		if (panel === undefined || bell === undefined)
			return;
		clearInterval(this.#ticking);
		bell.setAttribute("aria-expanded", String(isOpen));
		if (!isOpen) {
			removeEventListener("resize", this.#place);
			removeEventListener("scroll", this.#place, { capture: true });
			document.removeEventListener("visibilitychange", this.#onVisible);
			return;
		}
		this.#place();
		addEventListener("resize", this.#place);
		addEventListener("scroll", this.#place, { capture: true, passive: true });
		document.addEventListener("visibilitychange", this.#onVisible);
		panel.focus({ preventScroll: true });
		this.#ticking = setInterval(() => this.#tick(), TICK_MS);
		this.#tick();
		this.#seen = undefined;
		if (this.#inbox !== undefined)
			this.#show(this.#inbox.state);
		if (this.#hasGap)
			this.#showGap();
	}
	#showGap() {
		this.#hasGap = !this.#isOpen;
		if (this.#isOpen)
			this.#notice(this.#labels.gap);
	}
	#onVisible = () => {
		if (this.#inbox !== undefined)
			this.#see(this.#inbox.state);
	};
	#place = () => {
		const { panel, bell } = this.#parts ?? {};
		if (panel === undefined || bell === undefined)
			return;
		const { top, bottom, left, right } = bell.getBoundingClientRect();
		const { clientWidth, clientHeight } = document.documentElement;
		const margin = 8;
		const isBelow = clientHeight - bottom >= Math.min(420, top);
		const width = panel.offsetWidth;
		const isRightAligned = right >= width + margin || right > clientWidth - left;
		const wanted = isRightAligned ? right - width : left;
		const x = Math.max(margin, Math.min(wanted, clientWidth - width - margin));
		panel.style.left = `${x}px`;
		panel.style.top = isBelow ? `${bottom + 6}px` : "auto";
		panel.style.bottom = isBelow ? "auto" : `${clientHeight - top + 6}px`;
		const room = (isBelow ? clientHeight - bottom : top) - 6 - margin;
		panel.style.maxHeight = `${Math.max(200, Math.min(640, room))}px`;
	};
	get #now() {
		return this.#client?.now() ?? Date.now();
	}
	#tick() {
		for (const row of this.#rows.values())
			row.tick(this.#now);
	}
	get #isOpen() {
		return this.#parts?.panel.matches(":popover-open") ?? false;
	}
	#see({ items, unseen }) {
		const newest = items[0]?.id;
		const inbox = this.#inbox;
		if (inbox === undefined || inbox === this.#seeing || !this.#isOpen || document.visibilityState !== "visible")
			return;
		if (unseen === 0 || newest === this.#seen)
			return;
		this.#seen = newest;
		this.#seeing = inbox;
		const told = inbox.markSeen().catch((error) => {
			if (inbox === this.#inbox)
				this.#report(error);
		});
		void told.then(() => wait(SEEN_MS)).then(() => {
			if (inbox !== this.#inbox)
				return;
			this.#seeing = undefined;
			this.#see(inbox.state);
		});
	}
	#do(action) {
		const inbox = this.#inbox;
		if (inbox === undefined)
			return Promise.resolve(false);
		return action(inbox).then(() => inbox === this.#inbox, (error) => {
			if (inbox !== this.#inbox)
				return false;
			this.#report(error);
			this.#notice(this.#labels.notDone);
			return false;
		});
	}
	#report(thrown) {
		const error = asTidingsError(thrown);
		if (!error.isRetryable)
			console.error(error);
		this.dispatchEvent(new CustomEvent("tidings-error", { detail: error, bubbles: true, composed: true }));
	}
	#takeArrived(notification, isBacklog) {
		this.#arrived = notification;
		this.#unsaid += 1;
		if (!isBacklog)
			this.#announce();
		const detail = { ...notification, isBacklog };
		this.dispatchEvent(new CustomEvent("tidings-notification", { detail, bubbles: true, composed: true }));
	}
	#announce() {
		queueMicrotask(() => {
			const { announcer } = this.#parts ?? {};
			if (announcer === undefined || this.#arrived === undefined || this.#unsaid === 0)
				return;
			const { arrived, arrivedMany } = this.#labels;
			announcer.textContent = this.#unsaid === 1 ? arrived(displayOf(this.#arrived).title) : arrivedMany(this.#unsaid);
			this.#unsaid = 0;
		});
	}
	#show(state) {
		this.#wasLive ||= state.status === "live";
		this.#showBadgeOf(state);
		if (state.error !== undefined && state.error !== this.#reported) {
			this.#reported = state.error;
			this.#report(state.error);
		}
		if (this.#isOpen)
			this.#showList(state);
	}
	#showList(state) {
		const parts = this.#parts;
		const inbox = this.#inbox;
		if (parts === undefined || inbox === undefined)
			return;
		const { items, unread, hasMore, isLoading } = state;
		const isDone = !hasMore && this.shadowRoot?.activeElement === parts.more;
		const before = this.#rows.size;
		this.#showRows(items);
		const loaded = this.#rows.get((items[before] ?? items.at(-1))?.id ?? "");
		if (isDone && loaded !== undefined)
			this.#focus(loaded);
		else if (isDone)
			parts.panel.focus();
		if (unread === 0)
			this.#hide(parts.markAll);
		else
			parts.markAll.hidden = false;
		parts.empty.hidden = isLoading || items.length > 0 || hasMore;
		parts.more.hidden = !hasMore;
		const [words, retry] = this.#explain(state, inbox);
		parts.loading.hidden = !isLoading || words !== undefined;
		this.#showNotice(words, retry);
		parts.noticeAction.ariaBusy = String(state.error !== undefined && state.error === this.#tried);
		if (hasMore && items.length < 5)
			void inbox.loadMore().catch(() => { });
		this.#see(state);
	}
	#explain({ status, error, isLoading }, inbox) {
		const labels = this.#labels;
		if (error === undefined)
			return [];
		if (error === this.#tried)
			return [labels.trying, () => { }];
		const restart = () => this.#restart();
		const isFailed = status === "failed" || !error.isRetryable;
		const isOfToken = error.code === "token_unavailable";
		if (error.status === 401 || error.code === "unauthorized" || (isOfToken && error.status === 403)) {
			return isFailed ? [labels.signedOut, restart] : [labels.signedOut];
		}
		if (error.status === 403)
			return [labels.forbidden];
		if (isFailed)
			return [labels.failed, restart];
		if (error.status === 429 && !isOfToken)
			return [labels.tooManyRequests];
		const isListed = !isLoading && status !== "live";
		const words = !isListed ? labels.unreachable : this.#wasLive ? labels.reconnecting : labels.connecting;
		const retry = () => {
			this.#tried = error;
			inbox.retry();
			this.#showList(inbox.state);
		};
		return error.retryAfterMs === undefined && navigator.onLine ? [words, retry] : [words];
	}
	#showNotice(words, retry) {
		const { notice, noticeText, noticeAction } = this.#parts ?? {};
		if (notice === undefined || noticeText === undefined || noticeAction === undefined)
			return;
		if (words === undefined)
			this.#hide(notice);
		else
			notice.hidden = false;
		if (noticeText.textContent !== (words ?? ""))
			noticeText.textContent = words ?? "";
		if (retry === undefined)
			this.#hide(noticeAction);
		else
			noticeAction.hidden = false;
		noticeAction.textContent = this.#labels.retry;
		noticeAction.onclick = retry ?? null;
	}
	#notice(words, undo) {
		const { done, doneText, doneAction } = this.#parts ?? {};
		if (done === undefined || doneText === undefined || doneAction === undefined)
			return;
		clearTimeout(this.#undoTimer);
		done.hidden = false;
		doneText.textContent = words;
		doneAction.hidden = undo === undefined;
		doneAction.textContent = this.#labels.undo;
		doneAction.onclick = () => {
			this.#hide(done);
			undo?.();
		};
		this.#hideDoneLater(done);
	}
	#hideDoneLater(done) {
		this.#undoTimer = setTimeout(() => {
			if (done.matches(":hover, :focus-within"))
				this.#hideDoneLater(done);
			else
				this.#hide(done);
		}, UNDO_MS);
	}
	#hide(part) {
		const hadFocus = part.contains(this.shadowRoot?.activeElement ?? null);
		part.hidden = true;
		if (hadFocus)
			this.#parts?.panel.focus({ preventScroll: true });
	}
	#showBadgeOf(state) {
		this.#showBadge(state === undefined || state.isLoading ? undefined : state.unseen);
	}
	#showBadge(unseen) {
		const { badge, bell } = this.#parts ?? {};
		if (badge === undefined || bell === undefined)
			return;
		const { notifications, unseen: words } = this.#labels;
		if (unseen === undefined) {
			badge.hidden = true;
			badge.textContent = "";
			this.#badge = 0;
			bell.setAttribute("aria-label", notifications);
			return;
		}
		badge.hidden = unseen === 0;
		badge.textContent = unseen > 99 ? "99+" : String(unseen);
		badge.classList.toggle("new", unseen > this.#badge);
		this.#badge = unseen;
		bell.setAttribute("aria-label", `${notifications}: ${words(unseen)}`);
	}
	#showRows(items) {
		const { list } = this.#parts ?? {};
		if (list === undefined)
			return;
		const wanted = new Set(items.map(({ id }) => id));
		for (const [id, row] of this.#rows) {
			if (wanted.has(id))
				continue;
			this.#moveFocusFrom(row);
			row.element.remove();
			this.#rows.delete(id);
			if (this.#reached === row)
				this.#reached = undefined;
		}
		let before = null;
		for (const item of items) {
			const row = this.#rows.get(item.id) ?? this.#addRow(item);
			row.update(item);
			const place = before === null ? list.firstElementChild : before.nextElementSibling;
			if (place !== row.element)
				list.insertBefore(row.element, place);
			before = row.element;
		}
		const first = this.#rowOf(list.firstElementChild);
		if (this.#reached === undefined && first !== undefined)
			this.#reach(first);
	}
	#addRow(item) {
		const row = new Row(item, this.#labels, this.#now, {
			onOpen: (notification, event) => this.#open(notification, event),
			onOpenElsewhere: (notification) => this.#markRead(notification),
			onToggleRead: ({ id, read_at: readAt }) => {
				void this.#do((inbox) => (readAt === null ? inbox.markRead(id) : inbox.markUnread(id)));
			},
			onArchive: ({ id }) => this.#archive(id),
		});
		if (item.id === this.#arrived?.id)
			row.element.classList.add("arrived");
		this.#rows.set(item.id, row);
		return row;
	}
	#markRead({ id, read_at: readAt }) {
		if (readAt === null)
			void this.#do((inbox) => inbox.markRead(id));
	}
	#open(notification, event) {
		this.#markRead(notification);
		const { currentTarget } = event;
		const url = currentTarget instanceof HTMLAnchorElement ? currentTarget.href : undefined;
		const options = { detail: { notification, url }, cancelable: true, bubbles: true, composed: true };
		if (!this.dispatchEvent(new CustomEvent("tidings-open", options))) {
			event.preventDefault();
			this.close();
		}
	}
	#archive(id) {
		void this.#do((inbox) => inbox.archive(id)).then((isDone) => {
			const undo = () => void this.#do((inbox) => inbox.unarchive(id));
			if (isDone)
				this.#notice(this.#labels.archived, undo);
		});
	}
	#onKey(event) {
		if (event.altKey || event.ctrlKey || event.metaKey)
			return;
		const { target } = event;
		const list = this.#parts?.list;
		const ends = { Home: list?.firstElementChild, End: list?.lastElementChild };
		const row = target instanceof Element ? target.closest("li") : null;
		if (row === null) {
			const first = target === this.#parts?.panel ? this.#rowOf({ ArrowDown: list?.firstElementChild, ...ends }[event.key]) : undefined;
			if (first === undefined)
				return;
			this.#focus(first);
			event.preventDefault();
			return;
		}
		const to = this.#rowOf({ ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, ...ends }[event.key]);
		if (to !== undefined)
			this.#focus(to);
		else if (event.key === "Delete") {
			if (!event.repeat)
				this.#archive(row.dataset["id"] ?? "");
		}
		else if (event.key === "Enter" && target === row)
			(row.querySelector("a.title") ?? row).click();
		else
			return;
		event.preventDefault();
	}
	#rowOf(element) {
		return element instanceof HTMLElement ? this.#rows.get(element.dataset["id"] ?? "") : undefined;
	}
	#reach(row) {
		if (row === this.#reached)
			return;
		this.#reached?.reach(false);
		row.reach(true);
		this.#reached = row;
	}
	#focus(row) {
		this.#reach(row);
		row.element.focus();
	}
	#moveFocusFrom({ element }) {
		if (!element.contains(this.shadowRoot?.activeElement ?? null))
			return;
		const next = this.#rowOf(element.nextElementSibling ?? element.previousElementSibling);
		if (next !== undefined)
			this.#focus(next);
		else
			this.#parts?.panel.focus();
	}
}
async function fetchToken(url) {
	const response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
	if (!response.ok) {
		throw Object.assign(new Error(`the reply of ${url} has the status ${response.status}`), { status: response.status });
	}
	const text = (await response.text()).trim();
	const token = text.startsWith("{") ? JSON.parse(text).token : text;
	if (response.redirected && !isToken(token))
		throw Object.assign(new Error(`${url} leads to a page`), { status: 401 });
	return token;
}
if (globalThis.customElements !== undefined && customElements.get("tidings-inbox") === undefined) {
	customElements.define("tidings-inbox", TidingsInboxElement);
}
// index.ts
export { Tidings, displayOf, TidingsInboxElement, TidingsError, compareIds, Inbox, ServerClock, Stream };
