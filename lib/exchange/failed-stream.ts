// A stream that has failed never drains. Code that waits for that must not wait for ever: it is woken, and its next read or write tells it.

import { Duplex } from 'node:stream'

/** How often a failed stream emits 'drain'. A loop that never looks at its stream would otherwise go on for ever. */
const MAX_DRAINS = 1000

const { on } = Duplex.prototype

interface FailedStream extends Duplex {
  drains: number
}

const FAILED = {
  drains: 0,
  on (this: FailedStream, event: string | symbol, listener: (...args: any[]) => void): FailedStream {
    if (event === 'drain' && this.drains++ < MAX_DRAINS) setImmediate(emitDrain, this)
    return on.call(this, event, listener) as FailedStream
  },
  addListener (this: FailedStream, event: string | symbol, listener: (...args: any[]) => void): FailedStream {
    return this.on(event, listener) as FailedStream
  }
}

/** Emits 'drain' to the listeners that a failed stream has, and again whenever one is added. */
export function wakeWriters (stream: Duplex): void {
  Object.assign(stream, FAILED)
  if (stream.listenerCount('drain') > 0) setImmediate(emitDrain, stream)
}

function emitDrain (stream: Duplex): void {
  stream.emit('drain')
}
