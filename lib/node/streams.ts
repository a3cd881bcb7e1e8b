// The state of a stream: what Node keeps in `_readableState`, the same on Node 20 to 26.

import type { Duplex, Readable } from 'node:stream'

interface Internals {
  readableFlowing: boolean | null
  _readableState: { autoDestroy: boolean, pipes: unknown[] }
}

/** Makes a stream wait for its next listener for 'data', or for resume(), as a new stream does. */
export function resetFlow (stream: Duplex): void {
  (stream as unknown as Internals).readableFlowing = null
}

/** Sets whether a stream is destroyed when both its sides have ended (`autoDestroy`). The default is true. */
export function setAutoDestroy (stream: Readable, enabled: boolean): void {
  (stream as unknown as Internals)._readableState.autoDestroy = enabled
}

/** Whether the stream is piped into another, which may have paused it. */
export function isPiped (stream: Readable): boolean {
  return (stream as unknown as Internals)._readableState.pipes.length > 0
}

/** Whether a stream is being read, or was read to its end. */
export function isRead (stream: Readable): boolean {
  return stream.readableFlowing === true || stream.readableEnded || stream.listenerCount('data') > 0 || stream.listenerCount('readable') > 0
}

/** Resolves when more may be written. `stream` must emit 'drain' when it fails, too. */
export function drained (stream: Duplex): Promise<void> {
  return new Promise((resolve) => { stream.once('drain', resolve) })
}
