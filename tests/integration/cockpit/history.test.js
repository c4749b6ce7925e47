import { chart, scale, stretches, summary } from "../../../packaging/cockpit/chart.js";
import { find, textOf } from "../../../packaging/cockpit/dom.js";
import { merged, missingSeconds, parts, rowsOf, runs } from "../../../packaging/cockpit/history.js";
import { has, lacks, same } from "./check.js";
import { NOW, answered, card } from "./samples.js";

const hour = (row) => rowsOf(answered(3600, row));
const lines = (view, name) =>
    find(view, (each) => each.tag === "polyline" && each.attributes.class === `line ${name}`);

export const tests = {
    "unknown readings stay unknown, and are no zero"() {
        const [row] = rowsOf([[NOW * 1e6, null, null, 0, "blind"]]);
        same(row, { at: NOW, celsius: null, watts: null, limit: null, state: "blind" });
    },

    "each second is kept once, and none for longer than an hour"() {
        const first = merged([], hour(), NOW);
        const again = merged(first, rowsOf(answered(10)), NOW + 5);
        same(again.length, 3595);
        same(again[again.length - 1].at, NOW - 1);
    },

    "only what is missing is asked for"() {
        same(missingSeconds([], NOW), 3600);
        same(missingSeconds([{ at: NOW - 6 }], NOW), 8);
        same(missingSeconds([{ at: NOW - 9000 }], NOW), 3600);
        same(missingSeconds([{ at: NOW + 60 }], NOW), 1);
    },

    "a short peak and a lowered limit survive the thinning"() {
        const rows = hour((index) =>
            index === 1800 ? { celsius: 91, limit: 350, state: "critical" } : {},
        );
        const [, , , , , , part] = parts(rows, NOW, 12);
        same([part.celsius, part.limit, part.state], [91, 350, "critical"]);
    },

    "a gap in the readings is a gap in the line"() {
        const rows = hour().filter((_, index) => index < 1000 || index > 1300);
        same(lines(chart(card(), rows, NOW), "celsius").length, 2);
        same(lines(chart(card(), hour(), NOW), "celsius").length, 1);
        same(runs([{ at: 0, v: null }], "v"), []);
    },

    "the picture says in words what it shows, and says it again as a table"() {
        const rows = hour((index) => (index < 2700 ? {} : { celsius: 82, state: "alert" }));
        const view = chart(card(), rows, NOW);
        const [picture] = find(view, (each) => each.tag === "svg");
        same(picture.attributes.role, "img");
        has(picture.attributes["aria-label"], "60 to 82 °C, now 82 °C");
        has(textOf(view), "It ran hot in 25 % of that time");
        const table = find(view, (each) => each.tag === "tr").map(textOf);
        same(table.length, 13);
        same(table[1], "5 to 0 82 400 700 Running hot");
    },

    "nothing known is said, not drawn"() {
        lacks(JSON.stringify(chart(card(), [], NOW)), "svg");
        has(textOf(chart(card(), [], NOW)), "Nothing is known of its last hour");
        const blind = rowsOf(answered(60, () => ({ celsius: null, watts: null, limit: 0, state: "blind" })));
        same(summary(card(), blind), "Last hour: no readings.");
        lacks(JSON.stringify(chart(card({ alert_celsius: null }), blind, NOW)), "NaN");
    },

    "times of the same state are shaded as one"() {
        const states = ["normal", "alert", "alert", "critical", "normal"];
        const points = states.map((state, at) => ({ at, state }));
        same(stretches(points), [
            { state: "alert", from: 1, to: 2 },
            { state: "critical", from: 3, to: 3 },
        ]);
    },

    "a scale has all values and round numbers"() {
        const { ticks, y } = scale({ top: 0, bottom: 100 }, [0, 100], [450, null, 700]);
        same(ticks, [0, 200, 400, 600, 800]);
        same([y(0), y(800), y(400)], [100, 0, 50]);
    },
};
