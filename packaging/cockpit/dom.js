// Views as plain values, and the one function that makes a document look like them.
//
// A view is {tag, attributes, on, key, children} or a string. Elements stay where they are as long
// as their view does, so that focus, selection and what a screen reader is at survive each look.

const SVG = "http://www.w3.org/2000/svg";

/**
 * A view of an element.
 *
 * @param {string} tag
 * @param {object} [properties] attributes; `on`: messages by event; `key`: names it among its
 *     siblings. Attributes that are null, undefined or false are left out, true ones are empty.
 * @param {...any} children views, texts, numbers, arrays of them; null and false are left out.
 */
export function h(tag, properties = {}, ...children) {
    const { on = {}, key = null, ...given } = properties ?? {};
    const attributes = {};
    for (const [name, value] of Object.entries(given)) {
        if (value !== null && value !== undefined && value !== false) {
            attributes[name] = value === true ? "" : String(value);
        }
    }
    return { tag, attributes, on, key, children: flat(children) };
}

function flat(children) {
    return children
        .flat(Infinity)
        .filter((child) => child !== null && child !== undefined && child !== false)
        .map((child) => (typeof child === "object" ? child : String(child)));
}

/** All text of a view, as a reader hears it: blocks apart. */
export function textOf(view) {
    if (typeof view === "string") {
        return view;
    }
    return view.children.map(textOf).join(" ").replace(/\s+/g, " ").trim();
}

/** Every view within `view` (itself included) that `wanted` holds for, in the document's order. */
export function find(view, wanted) {
    if (typeof view === "string") {
        return [];
    }
    const below = view.children.flatMap((child) => find(child, wanted));
    return wanted(view) ? [view, ...below] : below;
}

/**
 * Makes the children of `parent` look like `views`.
 *
 * @param {(message: any) => void} tell hears the message of a view when its event happens.
 */
export function show(parent, views, tell) {
    const keyed = new Map();
    for (const child of parent.childNodes) {
        if (child.gpuwardenKey) {
            keyed.set(child.gpuwardenKey, child);
        }
    }
    let at = parent.firstChild;
    for (const view of flat([views])) {
        let node = view.key ? keyed.get(view.key) : at;
        if (!node || !fits(node, view)) {
            node = make(parent, view);
        }
        if (node === at) {
            at = at.nextSibling;
        } else {
            parent.insertBefore(node, at);
        }
        refresh(node, view, tell);
    }
    while (at) {
        const next = at.nextSibling;
        at.remove();
        at = next;
    }
}

function fits(node, view) {
    if (typeof view === "string") {
        return node.nodeType === 3;
    }
    return node.localName === view.tag && (node.gpuwardenKey ?? null) === view.key;
}

function make(parent, view) {
    const document = parent.ownerDocument;
    if (typeof view === "string") {
        return document.createTextNode(view);
    }
    const inSvg = view.tag === "svg" || parent.namespaceURI === SVG;
    const node = inSvg ? document.createElementNS(SVG, view.tag) : document.createElement(view.tag);
    node.gpuwardenKey = view.key;
    return node;
}

function refresh(node, view, tell) {
    if (typeof view === "string") {
        if (node.data !== view) {
            node.data = view;
        }
        return;
    }
    for (const { name } of [...node.attributes]) {
        // Whether a dialog or details is open is its user's to say.
        if (!(name in view.attributes) && name !== "open") {
            node.removeAttribute(name);
        }
    }
    for (const [name, value] of Object.entries(view.attributes)) {
        if (node.getAttribute(name) !== value) {
            node.setAttribute(name, value);
        }
    }
    listen(node, view, tell);
    show(node, view.children, tell);
}

function listen(node, view, tell) {
    node.gpuwardenMessages ??= {};
    for (const event of Object.keys(view.on)) {
        if (!(event in node.gpuwardenMessages)) {
            node.addEventListener(event, (happened) => {
                const message = node.gpuwardenMessages[event];
                if (message) {
                    happened.preventDefault();
                    tell(message);
                }
            });
        }
    }
    for (const event of Object.keys(node.gpuwardenMessages)) {
        node.gpuwardenMessages[event] = null;
    }
    Object.assign(node.gpuwardenMessages, view.on);
}
