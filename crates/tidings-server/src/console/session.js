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

let credential = fromAddress() ?? kept() ?? "";
keep();

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

export const session = {
  get credential() {
    return credential;
  },

  /** The user whose token is used: then this is their own portal. */
  get user() {
    return claimsOf(credential)?.sub;
  },

  /** Whether the caller may manage endpoints: a token needs a claim, and of an API key only the server knows. */
  get hasEndpoints() {
    const claims = claimsOf(credential);
    return claims === undefined || claims.endpoints === true;
  },

  signIn(text) {
    credential = text.trim();
    keep();
  },

  signOut() {
    credential = "";
    keep();
  },

  /** The client of a user. All tabs share its connection. */
  clientOf(user) {
    const { origin: url } = location;
    return new Tidings(credential === "" ? { url, user } : { url, user, token: () => credential });
  },
};

addEventListener("hashchange", () => {
  const token = fromAddress();
  if (token === undefined) return;
  session.signIn(token);
  location.reload();
});
