"""The configuration of a gateway: one TOML file, checked once and turned into frozen models. See `load_config`."""

from fisher_edge.config.load import load_config
from fisher_edge.config.schema import (
    AlarmConfig,
    AudioConfig,
    ChannelAlarmConfig,
    ChannelConfig,
    Config,
    GatewayConfig,
    HistoryConfig,
    ModelConfig,
    MqttConfig,
    OperatingStateConfig,
    SourceConfig,
)

__all__ = [
    "AlarmConfig",
    "AudioConfig",
    "ChannelAlarmConfig",
    "ChannelConfig",
    "Config",
    "GatewayConfig",
    "HistoryConfig",
    "ModelConfig",
    "MqttConfig",
    "OperatingStateConfig",
    "SourceConfig",
    "load_config",
]
