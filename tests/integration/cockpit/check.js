// What the tests of the page's pure parts say, and how they are run.

/** Fails unless both are the same, written out. */
export function same(found, wanted) {
    const [left, right] = [found, wanted].map((value) => JSON.stringify(value));
    if (left !== right) {
        throw new Error(`found ${left}, wanted ${right}`);
    }
}

/** Fails unless `text` has `part`. */
export function has(text, part) {
    if (!text.includes(part)) {
        throw new Error(`no ${JSON.stringify(part)} in ${JSON.stringify(text)}`);
    }
}

/** Fails if `text` has `part`. */
export function lacks(text, part) {
    if (text.includes(part)) {
        throw new Error(`${JSON.stringify(part)} in ${JSON.stringify(text)}`);
    }
}

/** Runs tests by their names; answers what failed, as text by name, and how many there were. */
export function run(tests) {
    const failed = {};
    for (const [name, test] of Object.entries(tests)) {
        try {
            test();
        } catch (error) {
            failed[name] = String(error.stack ?? error);
        }
    }
    return { count: Object.keys(tests).length, failed };
}
