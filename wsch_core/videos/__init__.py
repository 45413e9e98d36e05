"""A folder of videos as a data set; needs the extra [videos]: PyAV, and what the chosen extractor needs.

from wsch_core.videos import import_videos
print(import_videos("~/videos", "mine").summary())
"""

from .build import Import, import_videos

__all__ = ["Import", "import_videos"]
