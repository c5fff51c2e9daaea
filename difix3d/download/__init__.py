"""Public scenes, fetched one by one out of archives on servers."""

from difix3d.download.scenes import SCENES, Images, PublicScene, download

__all__ = ["SCENES", "Images", "PublicScene", "download"]
