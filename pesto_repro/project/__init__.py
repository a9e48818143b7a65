"""What the user declares: a PESTO project and its profiles, read and checked.

``read_project`` gives a ``Project`` or one ProjectError with every Problem; ``list_files`` says which of the
project's own files go into the image; ``lock_path`` where its lock is. Only ``reader`` touches files; the
other modules are pure.
"""

from pesto_repro.project.model import Project, ProjectFile
from pesto_repro.project.pyrequires import IndexOption
from pesto_repro.project.reader import list_files, lock_path, read_project
from pesto_repro.project.reference import Reference
from pesto_repro.project.requirements import ResourceSpec, expand, layout_path
from pesto_repro.project.service import config_json, service_json, version_json
from pesto_repro.project.settings import Settings, json_schema

__all__ = [
    "IndexOption",
    "Project",
    "ProjectFile",
    "Reference",
    "ResourceSpec",
    "Settings",
    "config_json",
    "expand",
    "json_schema",
    "layout_path",
    "list_files",
    "lock_path",
    "read_project",
    "service_json",
    "version_json",
]
