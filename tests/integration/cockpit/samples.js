// A service's status, as GetStatus answers it.

export const NOW = 1_800_000_000;

export function card(changes = {}) {
    return {
        index: 0,
        name: "NVIDIA H200",
        temperature_celsius: 61,
        memory_temperature_celsius: 64,
        power_watts: 412,
        power_limit_watts: 700,
        original_power_limit_watts: 700,
        utilization: 0.5,
        vram_used_bytes: 2 ** 33,
        vram_total_bytes: 2 ** 37,
        recovery_action: "none",
        state: "normal",
        alert_celsius: 80,
        critical_celsius: 90,
        batch_limit: null,
        dispatch_duty: 1,
        throttles: 0,
        recoveries: 0,
        since: (NOW - 7200) * 1e6,
        reason: "",
        admission: "open",
        stop_requested: false,
        sm_clock_lock_mhz: null,
        ...changes,
    };
}

export function worker(changes = {}) {
    return {
        number: 0,
        state: "ready",
        held: "",
        outdated: false,
        gpu: 0,
        requests: 1204,
        failures: 0,
        restarts: 0,
        operation: "",
        last_error: "",
        reason: "",
        since: (NOW - 90) * 1e6,
        ...changes,
    };
}

export function gateway(changes = {}) {
    return {
        queue_depth: 3,
        queue_limit: 100,
        completed: 15,
        failed: 1,
        rejected: 2,
        retried: 0,
        mean_response_seconds: 0.123,
        p95_response_seconds: 0.3,
        paused: false,
        paused_until: null,
        jobs: null,
        ...changes,
    };
}

export function status(changes = {}) {
    return {
        version: "0.1.0",
        simulated: false,
        state: "running",
        reasons: [],
        workers_ready: 2,
        workers_total: 2,
        workers: [worker(), worker({ number: 1, gpu: 1 })],
        gpus: [card(), card({ index: 1 })],
        gateway: gateway(),
        orphans: [],
        scans: {},
        ...changes,
    };
}

/** Rows as GetHistory answers them: one a second, the last `seconds`. */
export function answered(seconds, row = () => ({})) {
    return Array.from({ length: seconds }, (_, index) => {
        const at = NOW - seconds + index;
        const { celsius = 60, watts = 400, limit = 700, state = "normal" } = row(index);
        return [at * 1e6, celsius, watts, limit, state];
    });
}
