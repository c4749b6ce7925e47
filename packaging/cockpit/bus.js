// The service on the system bus, through Cockpit's own bridge: its login, its rights.

import { missingSeconds } from "./history.js";
import { ORDERS } from "./workers.js";

const NAME = "org.gpuwarden1";
const ROOT = "/org/gpuwarden1";
const MANAGER = `${NAME}.Manager`;
const THERMAL = `${NAME}.Thermal`;
const SECOND = 1000;
const ANSWER_MILLISECONDS = 10 * SECOND;
const LOOK_MILLISECONDS = 2 * SECOND;
const HISTORY_MILLISECONDS = 6 * SECOND;

/** Asks the service again and again, and takes orders to it. */
export class Service {
    /** @param tell hears what comes; `known()` is the page's state. */
    constructor(cockpit, tell, known) {
        this.cockpit = cockpit;
        this.tell = tell;
        this.known = known;
        this.client = null;
        this.timer = null;
        this.historyAt = 0;
    }

    /** Connects, anew where it is connected already: the rights may be others now. */
    connect() {
        this.close();
        const client = this.cockpit.dbus(NAME, { bus: "system", superuser: "try" });
        this.client = client;
        const isOurs = () => this.client === client;
        client.addEventListener("owner", (event, owner) => {
            if (isOurs() && owner) {
                this.look();
            } else if (isOurs()) {
                this.tell({ type: "away" });
            }
        });
        client.addEventListener("close", (event, options) => {
            if (isOurs()) {
                this.client = null;
                this.tell({ type: "trouble", error: options ?? {} });
                this.again();
            }
        });
        for (const [interfaceName, member] of [
            [MANAGER, "WorkerStateChanged"],
            [THERMAL, "StateChanged"],
        ]) {
            const heard = { interface: interfaceName, member };
            client.subscribe(heard, () => isOurs() && this.look());
        }
        this.look();
    }

    close() {
        clearTimeout(this.timer);
        const former = this.client;
        this.client = null;
        former?.close();
    }

    /** Asks now, and then at intervals, unless nobody can see the page. */
    async look() {
        clearTimeout(this.timer);
        const { client } = this;
        if (!client) {
            return;
        }
        try {
            const [text] = await this.call(client, ROOT, MANAGER, "GetStatus", []);
            const data = JSON.parse(text);
            this.tell({ type: "status", data });
            await this.lookBack(client, data.gpus);
        } catch (error) {
            if (this.client === client) {
                this.tell({ type: "trouble", error });
            }
        }
        if (this.client === client) {
            this.again();
        }
    }

    again() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.wake(), LOOK_MILLISECONDS);
    }

    /** Goes on where somebody can see the page; until then nobody is asked. */
    wake() {
        clearTimeout(this.timer);
        if (this.cockpit.hidden) {
            return;
        }
        if (this.client) {
            this.look();
        } else {
            this.connect();
        }
    }

    async lookBack(client, cards) {
        if (Date.now() - this.historyAt < HISTORY_MILLISECONDS) {
            return;
        }
        this.historyAt = Date.now();
        const { history, now } = this.known();
        await Promise.all(
            cards.map(async ({ index }) => {
                const seconds = missingSeconds(history[index] ?? [], now);
                const path = `${ROOT}/gpu/${index}`;
                try {
                    const [answered] = await this.call(client, path, THERMAL, "GetHistory", [seconds], "u");
                    this.tell({ type: "history", card: index, answered });
                } catch (error) {
                    this.tell({ type: "history-trouble", card: index, error });
                }
            }),
        );
    }

    /** Orders something of a worker; how it goes on is told by its state. */
    async order({ worker, verb }) {
        try {
            if (!this.client) {
                throw { message: "the service isn't running" };
            }
            await this.call(this.client, ROOT, MANAGER, ORDERS[verb].method, [worker], "u");
            this.tell({ type: "ordered", worker, verb });
        } catch (error) {
            this.tell({ type: "refused", worker, verb, error });
        }
        this.look();
    }

    call(client, path, interfaceName, method, values, types) {
        const options = { timeout: ANSWER_MILLISECONDS, ...(types ? { type: types } : {}) };
        return client.call(path, interfaceName, method, values, options);
    }
}
