// The relay: content that `pipe` takes from one exchange straight into another is written from the buffer it was read into,
// without a copy. Only if no other code can see the content: it might keep it, and the next read overwrites that buffer. Small
// content, such as a message, is copied together with its framing. It is written past the buffers of both streams, which would cost
// it more than the copy.

import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { pipesByNode, writesByNode } from '../node/memory.ts'
import { COPY_BELOW } from '../transfer/body-writer.ts'
import { type Landed, bytesOf, copyForUser, isLanded, retire, requestPrivateBuffer } from './read-buffers.ts'

/** The methods of a stream through which content passes. */
export type Methods = Pick<Duplex, 'write' | 'end' | '_write' | '_writev'>

/** A stream that content can be relayed to. */
export interface RelayTarget extends Duplex {
  /** The original methods of its class. */
  readonly originalMethods: Methods
  /** While this is set, a write goes to the connection within the call. Otherwise it waits for the end of the tick. */
  writesAtOnce: boolean
  /**
   * The connection, if the next write would go straight to the kernel: the head is sent, nothing is buffered here or there, and no write
   * is under way. Otherwise null.
   */
  readonly relaySocket: Socket | null
  /**
   * Writes content of less than COPY_BELOW bytes to `relaySocket`. The stream does not count it as buffered. As long as the kernel has
   * not accepted it, `relaySocket` is null, and the next write waits in the stream.
   */
  writeStraight (content: Buffer): void
  /** Whether a write of less than COPY_BELOW bytes is copied together with its framing before it goes to the connection. */
  readonly copiesSmallWrites: boolean
  /** Whether exactly `size` bytes of content are being written, and nothing else. */
  isWritingOnly (size: number): boolean
}

/** The socket, if it has nothing left to write. Otherwise null. */
export function idleSocket (socket: Duplex | null): Socket | null {
  return socket !== null && socket.writableLength === 0 && socket.writableCorked === 0 && !socket.destroyed ? socket as Socket : null
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

abstract class RelayTo {
  protected readonly target: RelayTarget

  constructor (target: RelayTarget) {
    this.target = target
  }

  /** Passes content on to the target, without a copy if possible. @returns whether more is wanted */
  push (content: Landed): boolean {
    const { target } = this
    const socket = isLanded(content) && this.isUnseen ? target.relaySocket : null
    if (socket !== null && content.length < COPY_BELOW) {
      target.writeStraight(target.copiesSmallWrites ? bytesOf(content) : Buffer.from(bytesOf(content)))
      return true
    }
    const buffer = socket !== null && writesByNode(socket) ? requestPrivateBuffer() : null
    if (buffer === null) return this.send(copyForUser(content)) // if it is in the shared buffer, the next read may go into a private one
    target.writesAtOnce = true
    try {
      return this.send(bytesOf(content))
    } finally {
      target.writesAtOnce = false
      // In `finally`: a listener for 'pause' may have thrown.
      if (this.isPassedOn && target.isWritingOnly(content.length)) buffer.writingSocket = socket
      else retire(buffer)
    }
  }

  protected abstract send (content: Buffer): boolean

  /** Whether content that is sent now goes straight to the target, and no other code sees it. */
  protected get isUnseen (): boolean {
    const { target, target: { originalMethods: methods } } = this
    // A replaced method may keep what passes through it.
    return target.write === methods.write && target.end === methods.end && target._write === methods._write && target._writev === methods._writev
  }

  /** Nothing of what was sent is left on this side. */
  protected abstract readonly isPassedOn: boolean
}

/** From a stream that is piped into another one. */
export class Relay extends RelayTo {
  private readonly source: Duplex
  private readonly listener: Function

  constructor (source: Duplex, target: RelayTarget, listener: Function) {
    super(target)
    this.source = source
    this.listener = listener
  }

  protected send (content: Buffer): boolean {
    return this.source.push(content)
  }

  protected override get isUnseen (): boolean {
    const { source } = this
    if (!super.isUnseen || source.readableFlowing !== true || source.readableLength > 0 || source.readableEncoding !== null) return false
    if (source.on !== on || source.emit !== emit || source.push !== push) return false
    const listeners = source.listeners('data')
    return listeners.length === 1 && listeners[0] === this.listener
  }

  protected get isPassedOn (): boolean {
    return this.source.readableLength === 0
  }
}

/** Receives the content of a stream in place of its readable side. */
export interface ContentReceiver {
  /** @param last whether `onEnd` follows, or a tunnel. @returns whether more is wanted. If not, none comes until `receiveMore` is called */
  onContent (content: Landed, last: boolean): boolean
  onEnd (): void
  /** Whether more is wanted now. */
  readonly wantsContent: boolean
}

/** A stream whose content can be received in this way. */
export interface ContentSource {
  receiver: ContentReceiver | null
  receiveMore (): void
}

/** Passes content from one stream to another, under backpressure, as `pipe` does. The readable side of the source has no part in it. */
export class DirectRelay extends RelayTo implements ContentReceiver {
  private readonly source: ContentSource
  private readonly end: (content?: Buffer) => void
  private readonly mayContinue: boolean
  private waitsForDrain = false
  private lastContent: Buffer | undefined

  /**
   * @param end ends the target, with the last content
   * @param mayContinue whether a tunnel may follow the last content, instead of the end
   */
  constructor (source: ContentSource, target: RelayTarget, end: (content?: Buffer) => void, mayContinue = false) {
    super(target)
    this.source = source
    this.end = end
    this.mayContinue = mayContinue
  }

  onContent (content: Landed, last: boolean): boolean {
    if (this.target.destroyed) return false
    if (last && !this.mayContinue) {
      // The end follows in the same tick.
      this.lastContent = this.isUnseen ? Buffer.from(bytesOf(content)) : copyForUser(content)
      return true
    }
    const wantsMore = this.push(content)
    if (!wantsMore && !this.waitsForDrain) {
      this.waitsForDrain = true
      this.target.once('drain', () => {
        this.waitsForDrain = false
        this.source.receiveMore()
      })
    }
    return wantsMore
  }

  onEnd (): void {
    this.end(this.lastContent)
  }

  get wantsContent (): boolean {
    return !this.waitsForDrain
  }

  protected send (content: Buffer): boolean {
    return this.target.write(content)
  }

  protected get isPassedOn (): boolean {
    return true
  }
}

/** The original methods, to compare with. */
const { on, emit, push } = Duplex.prototype
