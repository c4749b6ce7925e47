// What several views are made of. Pure.

import { h } from "./dom.js";
import { SIGNS } from "./words.js";

/** A state: sign and word, so that it can be told without its colour. */
export function badge(kind, text) {
    return h(
        "span",
        { class: `badge ${kind}` },
        h("span", { "aria-hidden": "true" }, `${SIGNS[kind]} `),
        text,
    );
}

/** A part of the page, under its heading. */
export function section(id, title, ...children) {
    return h(
        "section",
        { key: id, "aria-labelledby": `${id}-title` },
        h("h2", { id: `${id}-title` }, title),
        children,
    );
}

/** A table that scrolls by itself where the window is too narrow, by keyboard as well. */
export function table(caption, head, rows) {
    return h(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
        h(
            "table",
            {},
            h("caption", {}, caption),
            h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
            h("tbody", {}, rows),
        ),
    );
}

/** Names and what they are; pairs without a value are left out. */
export function facts(pairs) {
    return h(
        "dl",
        {},
        pairs
            .filter(([, value]) => value)
            .map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))),
    );
}

/** Something that has to be known, under a word of its own. */
export function notice(kind, title, ...children) {
    return h(
        "div",
        { class: `notice ${kind}` },
        h("p", {}, badge(kind, title)),
        children.map((child) => (typeof child === "string" ? h("p", {}, child) : child)),
    );
}

/** A button that tells `message`. */
export function button(label, message, properties = {}) {
    return h("button", { type: "button", on: { click: message }, ...properties }, label);
}
