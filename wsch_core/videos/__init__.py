"""A folder of videos as a data set; needs the extra [videos]: PyAV, and transformers for most extractors.

from wsch_core.videos import import_videos
print(import_videos("~/videos", "mine").summary())
"""

from .build import Import, import_videos

__all__ = ["Import", "import_videos"]
