// What a person had typed into a form when their key or token ended. It is in the memory of this page alone, because it may
// have a secret, until somebody who may do the same has signed in, or the person signs out.

import { session } from "./session.js";

let kept = [];

const isTyped = ({ value, defaultValue = value, checked, defaultChecked, options = [] }) =>
  value !== defaultValue || checked !== defaultChecked || [...options].some(({ selected, defaultSelected }) => selected !== defaultSelected);

/** Keeps what is typed at this moment in the forms that have a name for it. */
export function keepTyped() {
  const forms = [...document.querySelectorAll("form[data-typed]")].filter(({ elements }) => [...elements].some(isTyped));
  // A person whose next key is refused has no form any more.
  if (forms.length === 0) return;
  // At the places of the others is nothing: somebody else may change meanwhile what those show.
  const fieldsOf = ({ elements }) => [...elements].map((field) => isTyped(field) && { name: field.name, value: field.value, checked: field.checked });
  const { user } = session;
  const { hash: address } = location;
  kept = forms.map((form) => ({ user, address, form: form.dataset.typed, isDialog: form.closest("dialog") !== null, fields: fieldsOf(form) }));
}

export function forgetTyped() {
  kept = [];
}

/** A user has other endpoints than the operator. */
const isHere = ({ user, address }) => user === session.user && address === location.hash;

/** The name of the dialog of this view for which something is kept, if there is one. */
export const dialogKept = () => kept.find((typed) => isHere(typed) && typed.isDialog)?.form;

/** Puts what is kept into the form of that name, once. Returns whether there was something. */
export function restoreTyped(form) {
  const found = kept.find((typed) => isHere(typed) && typed.form === form.dataset.typed);
  if (found === undefined) return false;
  kept = kept.filter((typed) => typed !== found);
  found.fields.forEach((typed, index) => {
    const field = form.elements[index];
    if (!typed || field?.name !== typed.name) return;
    field.value = typed.value;
    if (typed.checked !== undefined) field.checked = typed.checked;
    if (isTyped(field)) field.closest("details")?.setAttribute("open", "");
  });
  return true;
}
