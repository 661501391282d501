"""The whole configuration: one TOML file, read into frozen values; the only reader of settings and environment.

An unknown key or an impossible value is refused with file, line, what was read and what is allowed. Process entries
load it; everything below is given the few values that it needs.
"""

from dicomguard.config.accepted import Accepted as Accepted
from dicomguard.config.doubts import doubts as doubts
from dicomguard.config.page import describe as describe
from dicomguard.config.reading import ENVIRONMENT as ENVIRONMENT
from dicomguard.config.reading import load as load
from dicomguard.config.reading import parse as parse
from dicomguard.config.sections import LOOPBACK as LOOPBACK
from dicomguard.config.sections import Analysis as Analysis
from dicomguard.config.sections import Completion as Completion
from dicomguard.config.sections import Config as Config
from dicomguard.config.sections import Database as Database
from dicomguard.config.sections import Delivery as Delivery
from dicomguard.config.sections import Node as Node
from dicomguard.config.sections import Receive as Receive
from dicomguard.config.sections import Retrain as Retrain
from dicomguard.config.sections import Storage as Storage
from dicomguard.config.sections import Tls as Tls
from dicomguard.config.sections import Web as Web
