"""The configuration of a gateway: one TOML file, checked once and turned into frozen models. See `load_config`."""

from fisher_edge.config.channel import ChannelAlarmConfig, ChannelConfig, OperatingStateConfig, SourceConfig
from fisher_edge.config.load import load_config
from fisher_edge.config.schema import (
    AlarmConfig,
    AudioConfig,
    Config,
    GatewayConfig,
    HistoryConfig,
    ModelConfig,
    MqttConfig,
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
