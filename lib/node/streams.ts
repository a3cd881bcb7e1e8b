// The state of a stream: what Node keeps in `_readableState`, the same on Node 20 to 26, and what keeps it in memory.

import type { Duplex, Readable } from 'node:stream'

interface Internals {
  readableFlowing: boolean | null
  _readableState: { autoDestroy: boolean, emittedReadable: boolean, readableListening: boolean, readingMore: boolean, pipes: unknown[] }
}

/** Makes a stream wait for its next listener for 'data', or for resume(), as a new stream does. */
export function resetFlow (stream: Duplex): void {
  (stream as unknown as Internals).readableFlowing = null
}

/** Sets whether a stream is destroyed when both its sides have ended (`autoDestroy`). The default is true. */
export function setAutoDestroy (stream: Readable, enabled: boolean): void {
  (stream as unknown as Internals)._readableState.autoDestroy = enabled
}

/**
 * Keeps Node from reading ahead: behind each chunk, it would call `_read` in a tick of its own until the buffer is full. For a stream
 * whose source pushes until the buffer is full anyway.
 */
export function neverReadAhead (stream: Readable): void {
  (stream as unknown as Internals)._readableState.readingMore = true
}

/** Keeps a stream from emitting 'readable' before anybody listens for it: that takes a tick. The first listener undoes this. */
export function skipReadable (stream: Readable): void {
  if (stream.listenerCount('readable') === 0) (stream as unknown as Internals)._readableState.emittedReadable = true
}

/**
 * Removes a listener for 'readable', and updates the flag that says whether there are any. Node updates it one tick later. A listener
 * that is added before that would not be called for chunks that are buffered already.
 */
export function offReadable (stream: Readable, listener: () => void): void {
  stream.off('readable', listener)
  ;(stream as unknown as Internals)._readableState.readableListening = stream.listenerCount('readable') > 0
}

/**
 * For `_read`: calls `fill`, which may push chunks at once. The caller of `read` gets them, so no 'readable' is emitted for them, which
 * would take a tick. If somebody listens for 'readable', it is emitted.
 */
export function fillSilently<Stream extends Readable> (stream: Stream, fill: (stream: Stream) => void): void {
  const { _readableState: state } = stream as unknown as Internals
  const { emittedReadable } = state
  skipReadable(stream)
  fill(stream)
  state.emittedReadable = emittedReadable
}

/** Whether the stream is piped into another, which may have paused it. */
export function isPiped (stream: Readable): boolean {
  return (stream as unknown as Internals)._readableState.pipes.length > 0
}

/** Whether a stream is being read, or was read to its end. */
export function isRead (stream: Readable): boolean {
  return stream.readableFlowing === true || stream.readableEnded || stream.listenerCount('data') > 0 || stream.listenerCount('readable') > 0
}

/** A chunk that was read from a stream, as bytes: with setEncoding() it is a string. */
export function bytesFrom (chunk: Buffer | string, { readableEncoding }: Readable): Buffer {
  return typeof chunk === 'string' ? Buffer.from(chunk, readableEncoding!) : chunk
}

/** Resolves when more may be written. `stream` must emit 'drain' when it fails, too. */
export function drained (stream: Duplex): Promise<void> {
  return new Promise((resolve) => { stream.once('drain', resolve) })
}

/**
 * The same function. V8 allocates a function literal that is assigned to a property in its old generation (`set_pretenure` in
 * its parser, Node 20 to 26). There it survives minor garbage collections, and so does everything that it refers to. A literal
 * that is passed as an argument is allocated like other objects.
 *
 * On Node 24 and 26, each Writable has such a function, `onwrite`. So a stream must not refer to an exchange that is over.
 */
export function shortLived<F extends (...args: any[]) => unknown> (literal: F): F {
  return literal
}
