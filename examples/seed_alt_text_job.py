"""The original's usage example "Alt Text Generation Job", line by line in Python.

The original's lines stand above ours. The services that it imports are small stand-ins here, with a real classifier.
"""

import asyncio
from typing import Any

# JS  import { JobQueue } from './services/job-queue.js'
# JS  import { generateAltText } from './services/copilot-adapter.js'
# JS  import { getThumbnailPath } from './services/thumbnail-cache.js'
from _pictures import every_nth, from_command_line
from _stand_ins import MainWindow, generate_alt_text, get_thumbnail_path, media_library

from mpqueue import JobProgress, JobQueue


async def main(media_items: list[dict[str, Any]]) -> None:
    main_window = MainWindow()

    # JS  const queue = new JobQueue({ concurrency: 3 })
    async with JobQueue(concurrency=3) as queue:
        # Handle progress events
        # JS  queue.on('job:progress', (progress) => {
        # JS    mainWindow.webContents.send('job:progress', progress)
        # JS  })
        @queue.on("job:progress")
        def send_to_window(progress: JobProgress) -> None:
            main_window.web_contents.send("job:progress", progress.to_dict())

        # Create and start job
        # JS  const job = queue.createJob('alt-text-batch', mediaItems, async (item) => {
        async def handler(item: dict[str, Any]) -> dict[str, Any]:
            # Download thumbnail to cache
            # JS  const thumbnailPath = await getThumbnailPath(item)
            thumbnail_path = await get_thumbnail_path(item)

            # Generate alt text
            # JS  const result = await generateAltText(thumbnailPath, { maxLength: 125 })
            result = await generate_alt_text(thumbnail_path, max_length=125)

            # JS  return { altText: result.altText }
            return {"altText": result.alt_text}

        job = queue.create_job("alt-text-batch", media_items, handler)

        # JS  await queue.start('alt-text-batch')
        await queue.start("alt-text-batch")

    for item in job.items:
        print(f"{item.payload['filename']}: {item.proposed_alt or item.error}")


if __name__ == "__main__":
    pictures, limit = from_command_line("The original's alt-text example on a few pictures.", limit=12)
    asyncio.run(main(media_library(every_nth(pictures, limit))))
