// The page's shell: what comes goes into the store, what is known is shown, orders go out.

import { Service } from "./bus.js";
import { show } from "./dom.js";
import { FrontDoor } from "./frontdoor.js";
import { page } from "./page.js";
import { Journal, clockAhead, examine, startService } from "./programs.js";
import { after, beginning } from "./store.js";
import { followTheme } from "./theme.js";

const { cockpit } = window;
const place = document.getElementById("page");
const said = document.getElementById("said");
const TICK_MILLISECONDS = 5000;

let ahead = 0;
let isDrawing = false;
let asker = null; // what had the focus before the question, and the cell that it was in
const now = () => Date.now() / 1000 + ahead;
let state = beginning(now());

const service = new Service(cockpit, tell, () => state);
const journal = new Journal(cockpit, tell);
const frontDoor = new FrontDoor(cockpit, tell);

function tell(message) {
    const before = state;
    state = after({ ...state, now: now() }, message);
    act(message, before);
    if (!isDrawing) {
        isDrawing = true;
        window.requestAnimationFrame(draw);
    }
}

function act(message, before) {
    if (message.type === "ask") {
        asker = { button: document.activeElement, cell: document.activeElement.closest("td") };
    } else if (message.type === "confirm" && before.question) {
        service.order(before.question);
    } else if (message.type === "status") {
        frontDoor.look(message.data, state.isAdministrator);
    } else if (message.type === "look") {
        examine(cockpit, tell);
    } else if (message.type === "start-service") {
        startService(cockpit, tell);
    }
}

function draw() {
    isDrawing = false;
    const cell = document.activeElement?.closest("td, section");
    show(place, page(state), tell);
    if (said.textContent !== state.said) {
        said.textContent = state.said;
    }
    const question = place.querySelector("dialog");
    if (question && !question.open) {
        question.showModal();
    } else if (!question && asker) {
        giveBackFocus(asker.button, asker.cell);
        asker = null;
    } else if (!question && document.activeElement === document.body) {
        giveBackFocus(null, cell);
    }
}

// To what had it, or what has come in its place: nobody is thrown back to the page's start.
function giveBackFocus(button, cell) {
    if (button?.isConnected) {
        button.focus();
    } else if (cell?.isConnected) {
        cell.querySelector("button")?.focus();
    }
}

async function begin() {
    followTheme(window);
    const permission = cockpit.permission({ admin: true });
    // Once: where rights change later, Cockpit loads the page anew.
    permission.addEventListener("changed", () => {
        const user = permission.user?.name ?? "";
        tell({ type: "login", user, isAdministrator: permission.allowed === true });
        service.connect();
        journal.follow();
        tell({ type: "look" });
    });
    cockpit.addEventListener("visibilitychange", () => service.wake());
    setInterval(() => !cockpit.hidden && tell({ type: "tick", now: now() }), TICK_MILLISECONDS);
    try {
        ahead = await clockAhead(cockpit);
    } catch (error) {
        console.warn("the node's clock can't be asked", error);
    }
}

begin();
