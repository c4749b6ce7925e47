// Light or dark as Cockpit is: its own switch first, else what the system prefers.

const SWITCH = "shell:style"; // Cockpit's, in the storage that its frames share

/** Keeps the document's class as Cockpit's own pages do. */
export function followTheme(window) {
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    const follow = (style) => {
        const chosen = style ?? window.localStorage.getItem(SWITCH) ?? "auto";
        const isDark = chosen === "dark" || (chosen === "auto" && system.matches);
        window.document.documentElement.classList.toggle("pf-v5-theme-dark", isDark);
    };
    window.addEventListener("storage", (event) => event.key === SWITCH && follow());
    window.addEventListener("cockpit-style", (event) => follow(event.detail?.style));
    system.addEventListener("change", () => follow());
    follow();
}
