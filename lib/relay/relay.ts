// The relay: content that `pipe` takes from one exchange straight into another is written from the buffer it was read into,
// without a copy. Only if no other code can see the content: it might keep it, and the next read overwrites that buffer.

import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { pipesByNode, writesByNode } from '../node/memory.ts'
import { COPY_BELOW } from '../transfer/body-writer.ts'
import { type Landed, bytesOf, copyForUser, isLanded, retire, requestPrivateBuffer } from './read-buffers.ts'

/** The methods of a stream through which content passes. */
export type Methods = Pick<Duplex, 'write' | '_write' | '_writev'>

/** A stream that content can be relayed to. */
export interface RelayTarget extends Duplex {
  /** The original methods of its class. */
  readonly originalMethods: Methods
  /** While this is set, a write goes to the connection within the call. Otherwise it waits for the end of the tick. */
  writesAtOnce: boolean
  /**
   * The connection, if the next write would go straight to it: the head is sent, nothing is buffered, and no write is under way.
   * Otherwise null.
   */
  readonly relaySocket: Socket | null
  /** Whether exactly `size` bytes of content are being written, and nothing else. */
  isWritingOnly (size: number): boolean
}

/** The socket, if what is written to it now reaches the kernel within the call, and no other code sees it. Otherwise null. */
export function unseenSocket (socket: Duplex | null): Socket | null {
  const isIdle = socket !== null && socket.writableLength === 0 && socket.writableCorked === 0 && !socket.destroyed
  return isIdle && writesByNode(socket as Socket) ? socket as Socket : null
}

export function isRelayTarget (stream: object): stream is RelayTarget {
  return 'relaySocket' in stream
}

/**
 * Pipes from one stream into another.
 *
 * @param pipe calls the inherited `pipe`
 * @returns a relay; null if that `pipe` is not Node's, or if other code has reacted to it with a listener for 'data'
 */
export function pipeToRelay (source: Duplex, target: RelayTarget, pipe: () => void): Relay | null {
  const isUnseen = pipesByNode(source)
  // Node's pipe adds one listener. A listener for 'newListener' or 'pipe' may add others, and may have removed that one.
  const added: Function[] = []
  const onNewListener = (event: string | symbol, listener: Function): void => { if (event === 'data') added.push(listener) }
  source.on('newListener', onNewListener)
  try {
    pipe()
  } finally {
    source.removeListener('newListener', onNewListener)
  }
  return isUnseen && added.length === 1 ? new Relay(source, target, added[0]) : null
}

export class Relay {
  private readonly source: Duplex
  private readonly target: RelayTarget
  private readonly listener: Function

  constructor (source: Duplex, target: RelayTarget, listener: Function) {
    this.source = source
    this.target = target
    this.listener = listener
  }

  /** Pushes content to the source, from which the pipe writes it to the target. @returns the result of `push` */
  push (content: Landed): boolean {
    const { source, target } = this
    const socket = isLanded(content) && this.isUnseen ? target.relaySocket : null
    if (socket === null) return source.push(copyForUser(content))
    if (content.length < COPY_BELOW) return this.pushAtOnce(Buffer.from(bytesOf(content)))
    const buffer = requestPrivateBuffer()
    if (buffer === null) return source.push(copyForUser(content)) // in the shared buffer; the next read may go into a private one
    try {
      return this.pushAtOnce(bytesOf(content))
    } finally {
      // In `finally`: a listener for 'pause' may have thrown.
      if (source.readableLength === 0 && target.isWritingOnly(content.length)) buffer.writingSocket = socket
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

  /** Whether the pipe writes content that is pushed now straight to the target, and no other code sees it. */
  private get isUnseen (): boolean {
    const { source, target } = this
    const { originalMethods: methods } = target
    if (source.readableFlowing !== true || source.readableLength > 0) return false
    // A replaced method may keep what passes through it.
    if (source.on !== on || source.emit !== emit || source.push !== push) return false
    if (target.write !== methods.write || target._write !== methods._write || target._writev !== methods._writev) return false
    const listeners = source.listeners('data')
    return listeners.length === 1 && listeners[0] === this.listener
  }
}

/** The original methods, to compare with. */
const { on, emit, push } = Duplex.prototype
