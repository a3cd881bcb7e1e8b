// The relay: content that `pipe` takes from one exchange straight into another is written from the buffer it was read into,
// without a copy, if nobody else can see it. Anybody who could might keep it, and the next read overwrites it.

import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { pipesByNode, writesByNode } from '../node/stream-methods.ts'
import { COPY_BELOW } from '../transfer/body-writer.ts'
import { type Landed, bytesOf, copyForUser, isLanded, retire, wantPrivate } from './read-buffers.ts'

/** A stream that content can be relayed to. */
export interface RelayTarget extends Duplex {
  /** Not corked: what is written goes to `relaySocket` within the call. While it is set, no write waits for the end of the tick. */
  writesAtOnce: boolean
  /** The connection, if the next write goes straight to it: the head is sent, nothing is buffered, no write is under way. */
  readonly relaySocket: Socket | null
  /** Whether exactly this much content is being written, and nothing else. */
  isWriting (size: number): boolean
}

/** The connection, if what is written now is given to the kernel within the call, seen by nobody. */
export function unseenSocket (socket: Duplex | null): Socket | null {
  const isIdle = socket !== null && socket.writableLength === 0 && socket.writableCorked === 0 && !socket.destroyed
  return isIdle && writesByNode(socket as Socket) ? socket as Socket : null
}

/** The methods of the streams' class by which content gets from one to the other. */
export type Methods = Pick<Duplex, 'on' | 'write' | '_write' | '_writev'>

/**
 * Pipes from one stream into another.
 *
 * @param methods as they are while nobody has replaced them
 * @param pipe calls Node's own
 * @returns a relay; null if the pipe is not Node's, or if it was noticed
 */
export function pipeToRelay (source: Duplex, target: RelayTarget, methods: Methods, pipe: () => void): Relay | null {
  const isUnseen = pipesByNode(source)
  const before = source.listeners('data')
  pipe()
  if (!isUnseen) return null
  // The pipe adds one listener. A listener for 'newListener' may add others.
  const added = source.listeners('data').filter((listener) => !before.includes(listener))
  return added.length === 1 ? new Relay(source, target, added[0], methods) : null
}

export class Relay {
  private readonly source: Duplex
  private readonly target: RelayTarget
  private readonly listener: Function
  private readonly methods: Methods

  constructor (source: Duplex, target: RelayTarget, listener: Function, methods: Methods) {
    this.source = source
    this.target = target
    this.listener = listener
    this.methods = methods
  }

  /** Pushes content to the source, from where the pipe writes it to the target. @returns what `push` returns */
  push (content: Landed): boolean {
    const { source, target } = this
    const socket = isLanded(content) && this.isUnseen ? target.relaySocket : null
    if (socket === null) return source.push(copyForUser(content))
    if (content.length < COPY_BELOW) return this.pushAtOnce(Buffer.from(bytesOf(content)))
    const buffer = wantPrivate()
    if (buffer === null) return source.push(copyForUser(content))
    try {
      return this.pushAtOnce(bytesOf(content))
    } finally {
      // Also if a listener for 'pause' has thrown.
      if (source.readableLength === 0 && target.isWriting(content.length)) buffer.writer = socket
      else retire(buffer)
    }
  }

  private pushAtOnce (content: Buffer): boolean {
    const { source, target } = this
    target.writesAtOnce = true
    try {
      return source.push(content)
    } finally {
      target.writesAtOnce = false
    }
  }

  /** Whether content that is pushed now is written to the target by the pipe, and seen by nobody else. */
  private get isUnseen (): boolean {
    const { source, target, methods } = this
    if (source.readableFlowing !== true || source.readableLength > 0) return false
    // A method that somebody has replaced may see what passes through it, and keep it.
    if (source.on !== methods.on || source.emit !== emit || source.push !== push) return false
    if (target.write !== methods.write || target._write !== methods._write || target._writev !== methods._writev) return false
    const listeners = source.listeners('data')
    return listeners.length === 1 && listeners[0] === this.listener
  }
}

// As they are while nobody has replaced them.
const { emit, push } = Duplex.prototype
