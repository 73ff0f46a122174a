// Who uses the console: with an API key, with a user's token, or, on a server that is open, with neither.

import { Tidings } from "/tidings.js";

/** The credential is kept for this tab until it is closed. It is in no URL. */
const STORED = "tidings.credential";

/** The claims of a JSON Web Token, or undefined for an API key. The server verifies the token; this only reads it. */
function claimsOf(credential) {
  const [, payload, signature] = credential.split(".");
  if (!payload || !signature) return undefined;
  try {
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims?.sub === "string" ? claims : undefined;
  } catch {
    return undefined;
  }
}

/** Takes the token out of the address, if an application has opened the page with `#token=…`. */
function fromAddress() {
  const { hash } = location;
  if (!hash.startsWith("#token=")) return undefined;
  history.replaceState(null, "", location.pathname);
  return hash.slice("#token=".length);
}

/** What a portal in a frame says to the page around it when its token is refused or expires, and what that page replies. */
const NEEDED = "tidings.token_needed";
const TOKEN = "tidings.token";

/** How long the page around may take to reply. */
const REPLY_MS = 10_000;

let credential = fromAddress() ?? kept() ?? "";
keep();

/** What the server has said of the caller, once it has. */
let told;

/** The user of the last caller that was known: null for an operator, undefined before there was one. */
let lastUser;
const knownUser = () => session.user ?? (told === undefined ? lastUser : null);

/** Raised when a person signs in or out: what was asked before is of another caller. */
let entry = 0;

function use(text) {
  credential = text.trim();
  keep();
}

/** A browser may refuse to store anything, for instance in the frame of another site. */
function kept() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function keep() {
  try {
    if (credential === "") sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, credential);
  } catch {
    // The page works until it is loaded again.
  }
}

let asking;
let renewed = () => {};

/** Asks the page around this one for another token than `refused`. Returns the credential to use, which may be the same. */
async function renew(refused) {
  if (parent === window || session.user === undefined || credential !== refused) return credential;
  asking ??= new Promise((resolve) => {
    renewed = resolve;
    setTimeout(resolve, REPLY_MS);
    // Any page may read that a token is needed.
    parent.postMessage({ type: NEEDED }, "*");
  }).finally(() => {
    asking = undefined;
  });
  await asking;
  return credential;
}

/** Called when the page around this one, or the address, has brought another credential, with whether it is another user's. */
let onAnother = () => {};
export const whenAnother = (action) => {
  onAnother = action;
};

/** Only pages of `--allow-origin` can show this one in a frame, so what is around it may say whose portal it is. */
addEventListener("message", ({ source, data }) => {
  if (parent === window || source !== parent || data?.type !== TOKEN) return;
  if (typeof data.token !== "string" || claimsOf(data.token.trim()) === undefined) {
    console.error(`${TOKEN}: expected a token of a user in the member \`token\``);
    renewed();
    return;
  }
  if (claimsOf(data.token.trim()).sub === session.user) {
    use(data.token);
    renewed();
  } else {
    const isOfAnother = session.signIn(data.token);
    // Nothing is sent again with it that was for the caller before.
    renewed();
    onAnother(isOfAnother);
  }
});

const signedOut = () => Object.assign(new Error("the person has signed out"), { status: 401 });

export const session = {
  get credential() {
    return credential;
  },

  get entry() {
    return entry;
  },

  /** The user whose token is used: then this is their own portal. Of a token in a cookie only the server knows. */
  get user() {
    return claimsOf(credential)?.sub ?? told?.user_id ?? undefined;
  },

  /** The name of the API key, if it is one of the database. */
  get name() {
    return told?.name ?? undefined;
  },

  /** Whether the server has said who the caller is. */
  get isKnown() {
    return told !== undefined;
  },

  learn(who) {
    told = who;
  },

  /** Whether the caller is the one that the server has told of before. */
  isStill(who) {
    const [now, before] = [who, told].map(({ kind, user_id: user, scopes }) => JSON.stringify([kind, user, scopes]));
    return now === before;
  },

  /** Whether the caller may do what a scope is for. A token says it itself, and may have been replaced since. */
  may(scope) {
    const claims = claimsOf(credential);
    if (claims !== undefined) return scope === "read" || (scope === "endpoints" && claims.endpoints === true);
    return told?.scopes.includes(scope) === true;
  },

  /**
   * Begins with another credential, or with a cookie of `user`. Returns whether that is another user's than what was used
   * last; while nothing was known of a caller, it may be the same.
   */
  signIn(text, user) {
    const before = knownUser();
    lastUser = before;
    entry += 1;
    told = undefined;
    use(text);
    return before !== undefined && before !== (this.user ?? user ?? null);
  },

  signOut() {
    this.signIn("");
  },

  renew,

  /** The client of a user. All tabs share its connection. */
  clientOf(user) {
    const { origin: url } = location;
    if (credential === "") return new Tidings({ url, user });
    const begun = entry;
    let given;
    const token = async () => {
      if (entry !== begun) throw signedOut();
      given = given === undefined ? credential : await renew(given);
      if (entry !== begun) throw signedOut();
      return given;
    };
    return new Tidings({ url, user, token });
  },
};

addEventListener("hashchange", () => {
  const token = fromAddress();
  if (token === undefined) return;
  onAnother(session.signIn(token));
});
