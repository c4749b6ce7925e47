"""org.gpuwarden1.Thermal: how one card is kept cool."""

from gpuwarden.bus.interface import Argument, Emits, Interface, Property, Signal
from gpuwarden.control.states import ThermalData
from gpuwarden.names import BUS_NAME

THERMAL: Interface[ThermalData] = Interface(
    f"{BUS_NAME}.Thermal",
    "How one card is kept cool.",
    properties=(
        Property(
            "State",
            "s",
            Emits.TRUE,
            lambda card: card.state,
            "normal, alert, critical, recovering, blind (no reading: cooled to be safe), released "
            "or lost.",
        ),
        Property(
            "AlertCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.alert_celsius,
            "Temperature above which it is cooled; NaN: unknown.",
        ),
        Property(
            "CriticalCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.critical_celsius,
            "Temperature above which its work stops; NaN: unknown.",
        ),
        Property(
            "SafeCelsius",
            "d",
            Emits.TRUE,
            lambda card: card.safe_celsius,
            "Temperature below which it gets its limits back; NaN: unknown.",
        ),
        Property(
            "OriginalPowerLimitWatts",
            "d",
            Emits.TRUE,
            lambda card: card.original_power_limit_watts,
            "The administrator's power limit, which it gets back; NaN: unknown.",
        ),
        Property(
            "BatchLimit",
            "u",
            Emits.TRUE,
            lambda card: card.batch_limit,
            "Requests that may run on it together; 0: not limited by heat.",
        ),
        Property(
            "DispatchDuty",
            "d",
            Emits.FALSE,
            lambda card: card.dispatch_duty,
            "Share of the time in which it is given work, 0 to 1.",
        ),
        Property(
            "Throttles",
            "u",
            Emits.FALSE,
            lambda card: card.throttles,
            "Times it had to be cooled since the boot.",
        ),
        Property(
            "Recoveries",
            "u",
            Emits.FALSE,
            lambda card: card.recoveries,
            "Times it got everything back since the boot.",
        ),
        Property(
            "Since",
            "t",
            Emits.TRUE,
            lambda card: card.since,
            "When it entered its state, in microseconds since 1970.",
        ),
        Property(
            "Reason",
            "s",
            Emits.TRUE,
            lambda card: card.reason,
            "Why it is in its state; names an override.",
        ),
        Property(
            "Actuators",
            "a{ss}",
            Emits.INVALIDATES,
            lambda card: card.actuators,
            "What it can be cooled with: name to the reason why it can't be used, empty where it "
            "can.",
        ),
    ),
    signals=(
        Signal(
            "StateChanged",
            "The card went from one thermal state to another.",
            (
                Argument("old_state", "s"),
                Argument("new_state", "s"),
                Argument("celsius", "d"),
                Argument("reason", "s"),
            ),
        ),
    ),
)
