// Whether the reader of a stream waits: it has asked for content, and none is there. Node does not tell that from a reader which
// works on the last chunk, since a stream reads ahead for both. So for `minRate`, each read is noted.

import type { Readable } from 'node:stream'

interface Noted extends Readable {
  /** The last read has found nothing. */
  readInVain?: boolean
  readUnnoted?: (size?: number) => any
}

const NOTED = {
  read (this: Noted, size?: number): any {
    const chunk = this.readUnnoted!(size)
    if (size !== 0) this.readInVain = chunk === null // read(0) is Node's own, to fill the buffer
    return chunk
  },
  readInVain: false
}

/** Makes `isWaitedFor` known for a stream. */
export function noteReads (stream: Readable): void {
  Object.assign(stream, { readUnnoted: stream.read }, NOTED)
}

/** Whether the reads of a stream are noted. */
export function areReadsNoted (stream: Readable): boolean {
  return stream.read === NOTED.read
}

/** Whether the reader of a stream waits for content. Only known after `noteReads`. */
export function isWaitedFor (stream: Readable): boolean {
  const isBeingRead = stream.readableFlowing === true || stream.listenerCount('readable') > 0
  return isBeingRead && stream.readableLength === 0 && (stream as Noted).readInVain === true
}
