"""The original's usage example "Folder Organization Job", line by line in Python.

The original's lines stand above ours. The service that proposes a folder is a stand-in here: it takes the folder of
the filed picture that a real classifier finds most alike.
"""

import asyncio
from pathlib import Path
from typing import Any

from _filing import Folder
from _pictures import every_nth, from_command_line
from _stand_ins import filed_library, generate_alt_text_with_folder, get_thumbnail_path, media_library

from mpqueue import JobQueue


async def main(media_items: list[dict[str, Any]], folders: list[Folder]) -> None:
    async with JobQueue(concurrency=3) as queue:
        # JS  const job = queue.createJob('folder-batch', mediaItems, async (item) => {
        async def handler(item: dict[str, Any]) -> dict[str, Any]:
            # JS  const thumbnailPath = await getThumbnailPath(item)
            thumbnail_path = await get_thumbnail_path(item)

            # JS  const result = await generateAltTextWithFolder(thumbnailPath, folders, {
            # JS    languageName: 'English',
            # JS    metadata: { filename: item.filename }
            # JS  })
            result = await generate_alt_text_with_folder(
                thumbnail_path, folders, language_name="English", metadata={"filename": item["filename"]}
            )

            # JS  return { action: result.action, folderId: result.folderId, folderPath: result.folderPath, ...
            return {
                "action": result.action,
                "folderId": result.folder_id,
                "folderPath": result.folder_path,
                "newFolderPath": result.new_folder_path,
                "confidence": result.confidence,
            }

        job = queue.create_job("folder-batch", media_items, handler)
        await queue.start("folder-batch")

    for item in job.items:
        if item.result is None:
            print(f"{item.payload['filename']}: {item.error}")
        else:
            result = item.result
            folder = result["folderPath"] or result["newFolderPath"]
            print(f"{item.payload['filename']}: {result['action']} {folder} (confidence {result['confidence']})")


if __name__ == "__main__":
    pictures, limit = from_command_line("The original's folder example on a few pictures.", limit=12)
    folders, unfiled = filed_library(pictures)
    print("Folders, with the pictures that are in them already:")
    for folder in folders:
        print(f"  {folder.path}: {', '.join(Path(path).stem for path in folder.filed)}")
    asyncio.run(main(media_library(every_nth(unfiled, limit)), folders))
