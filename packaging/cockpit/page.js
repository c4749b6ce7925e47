// The whole page. Pure.

import { cards } from "./cards.js";
import { doctor } from "./doctor.js";
import { h } from "./dom.js";
import { events } from "./events.js";
import { orphans, requests } from "./requests.js";
import { head } from "./service.js";
import { question, workers } from "./workers.js";

/** The page as a view of what is known. */
export function page(state) {
    const isKnown = state.status !== null && state.link !== "denied";
    return [
        h(
            "main",
            { key: "main", class: state.link === "live" ? null : "stale" },
            head(state),
            isKnown && [cards(state), workers(state), requests(state), orphans(state)],
            events(state),
            doctor(state),
        ),
        isKnown && question(state),
    ];
}
