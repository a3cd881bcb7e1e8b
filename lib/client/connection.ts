// A connection to a server. It has one call at a time. Between two calls it is idle, and belongs to the pool.

import type { Socket } from 'node:net'
import { ServerGoneError, ServerTimeoutError } from '../errors.ts'
import { progressOf, queuedBytes, resetConnection, startReading, stopReading, writeBuffers } from '../node/socket.ts'
import { type Landed, ReadBuffers, asLanded, bytesOf, copyForUser } from '../relay/read-buffers.ts'
import { type IdleWatching, type Watched, sharedIdleWatch } from '../transport/idle-watch.ts'
import type { Call, CallConnection } from './call.ts'

/** Milliseconds that a request may take to its server. */
const MARGIN = 1000

type Done = (error?: Error | null) => void

export interface ConnectionTimeouts {
  /** Milliseconds until the head of the response must be there, once the request was sent or the head has begun. 0: no limit */
  readonly headersTimeout: number
  /** Milliseconds behind the head in which the server neither sends nor takes a byte, unless the call is a tunnel. 0: no limit */
  readonly bodyTimeout: number
  /** Milliseconds to wait for a 100 (Continue) before the body is sent. */
  readonly expectTimeout: number
}

/** A call that is to be sent. */
export interface Job {
  readonly call: Call
  readonly timeouts: ConnectionTimeouts
}

/** What the pool is told of its connection. */
export interface ConnectionOwner {
  /** The call is over, and the connection may be used for another one. */
  onIdle (connection: ClientConnection): void
  /** The connection is closed, or must not be used again. Called once. */
  onUnusable (connection: ClientConnection): void
  /** The connection was dead before the call. The call is to be sent on a new one, in the place of this one. */
  retry (job: Job): void
}

export class ClientConnection implements CallConnection, Watched {
  readonly socket: Socket
  /** Calls that the connection has had before the present one. */
  private uses = 0
  private call: Call | null = null
  private timeouts!: ConnectionTimeouts
  private readonly owner: ConnectionOwner
  private readonly buffers: ReadBuffers
  private isPaused = false
  private hasPaused = false // since the last timeout
  private isUsable = true
  private isClean = true // no bytes have come that nobody has asked for
  private hasReceived = false // bytes of the present response
  private isReceiving = false // in the current call stack
  private headTimer: NodeJS.Timeout | undefined
  private continueTimer: NodeJS.Timeout | undefined
  private watching: IdleWatching | null = null // by `bodyTimeout`
  private keepAliveTimeout = Infinity // of the server, in milliseconds
  private error: Error | null = null

  constructor (socket: Socket, owner: ConnectionOwner) {
    this.socket = socket
    this.owner = owner
    this.buffers = new ReadBuffers(socket)
    socket.on('data', (data: Buffer) => this.onData(asLanded(data)))
    socket.on('end', () => this.onEnd())
    socket.on('error', (error) => this.onError(error))
    socket.on('close', () => this.onClose())
    socket.on('timeout', () => {
      if (this.call === null) this.close() // otherwise it is a timeout that the user has set
    })
    this.buffers.open((data) => {
      if (socket.listenerCount('data') > 1 || socket.readableLength > 0) return socket.push(copyForUser(data)) // the user listens, too
      this.onData(data)
      return !this.isPaused
    })
  }

  start ({ call, timeouts }: Job): void {
    this.call = call
    this.timeouts = timeouts
    this.hasReceived = false
    this.socket.setTimeout(0)
    this.socket.ref()
    if (call.request.expectsContinue) this.continueTimer = setTimeout(() => call.continueRequest(), timeouts.expectTimeout)
    call.start(this)
  }

  /** Keeps the connection until a call needs it, or for `idleTimeout` milliseconds. */
  keep (idleTimeout: number): void {
    this.socket.setTimeout(Math.min(idleTimeout, this.keepAliveTimeout))
    this.socket.unref()
  }

  /** Closes an idle connection. */
  close (): void {
    this.retire()
    this.socket.destroy()
  }

  // For the call

  read (): void {
    if (!this.isPaused) return
    this.isPaused = false
    startReading(this.socket)
  }

  pause (): void {
    this.isPaused = this.hasPaused = true
    stopReading(this.socket)
  }

  write (buffers: readonly Buffer[], done?: Done): void {
    writeBuffers(this.socket, buffers, done)
  }

  end (done: Done): void {
    this.socket.end(done)
  }

  onProgress (): void {
    const { call } = this
    if (call === null) return
    this.watch(call)
    if (!this.isReceiving && call.isOver) this.finish(call)
  }

  /** Sets the timers by what the server has to do now. */
  private watch (call: Call): void {
    const { timeouts: { headersTimeout, bodyTimeout } } = this
    if (call.head !== null) {
      this.stopTimers()
      if (!call.isTunnel) this.watchBody(bodyTimeout)
    } else if (headersTimeout === 0) {
      // no limit
    } else if (call.hasSentRequest || call.isWithinHead) {
      this.headTimer ??= setTimeout(() => this.fail(new ServerTimeoutError('answered', headersTimeout)), headersTimeout)
    } else {
      clearTimeout(this.headTimer)
      this.headTimer = undefined
    }
  }

  private watchBody (bodyTimeout: number): void {
    this.watching ??= sharedIdleWatch(bodyTimeout).start(this)
  }

  get progress (): number {
    return progressOf(this.socket)
  }

  get isStuck (): boolean {
    return queuedBytes(this.socket) > 0
  }

  abort (): void {
    this.leave()
    this.retire()
    resetConnection(this.socket)
  }

  /** The call is over, and nothing of it is left on the connection. */
  private finish (call: Call): void {
    const { socket, timeouts: { bodyTimeout } } = this
    this.leave()
    if (!call.isPersistent || !this.isClean || socket.readableEnded || !socket.writable) {
      this.retire()
      this.watchBody(bodyTimeout) // the server may not take the last bytes
      if (call.hasSentRequest) socket.destroySoon()
      else resetConnection(socket) // the server need not wait for the rest
      return
    }
    this.uses++
    this.keepAliveTimeout = keepAliveTimeout(call.head!.headers['keep-alive'])
    this.read()
    this.owner.onIdle(this)
  }

  private leave (): void {
    this.call = null
    this.stopTimers()
    this.watching?.leave()
    this.watching = null
  }

  private retire (): void {
    if (!this.isUsable) return
    this.isUsable = false
    this.buffers.useShared()
    this.owner.onUnusable(this)
  }

  // Timeouts

  private stopTimers (): void {
    clearTimeout(this.headTimer)
    clearTimeout(this.continueTimer)
    this.headTimer = this.continueTimer = undefined
  }

  /** Nothing has moved for `bodyTimeout`. */
  onIdle (): void {
    const { call, socket, timeouts: { bodyTimeout } } = this
    if (call === null) {
      this.close()
    } else if (this.hasPaused || (!call.hasSentRequest && socket.writableLength === 0)) {
      // It was our side that has not read on, or it has to send more.
      this.hasPaused = this.isPaused
    } else {
      this.fail(new ServerTimeoutError('sent or taken anything', bodyTimeout))
    }
  }

  private fail (error: Error): void {
    const { call } = this
    this.abort()
    call?.onConnectionLost(error)
  }

  // Events of the socket

  private onData (data: Landed): void {
    const { call } = this
    if (call === null) {
      this.close() // nobody has asked for it, and it must not be taken for the response to the next request
      return
    }
    if (!call.hasSentHead && this.retry(call)) return // the same, for the request that is about to be sent
    this.hasReceived = true
    this.receive(call, data)
  }

  private receive (call: Call, data: Landed): void {
    let rest = bytesOf(data)
    this.isReceiving = true
    try {
      while (rest.length > 0 && this.call === call && !call.hasReceivedResponse) rest = rest.subarray(call.receive(asLanded(rest)))
    } catch (error) {
      // A listener of the user has thrown. The bytes behind those that it was called for must not be taken for others.
      this.fail(error as Error)
      throw error
    } finally {
      this.isReceiving = false
    }
    if (this.call !== call) return
    // Whose are they? They must not be taken for the response to the next request.
    if (rest.length > 0) this.isClean = false
    if (call.head === null) this.watch(call)
    else if (call.isOver) this.finish(call)
  }

  private onEnd (): void {
    const { call } = this
    if (call === null) this.close()
    else if (!this.retry(call)) call.onEnd()
  }

  private onError (error: Error): void {
    this.error = error
    // Not only when the socket has closed: a request that is about to be sent would be written to it.
    if (this.call !== null && !this.call.hasSentHead) this.retry(this.call)
  }

  private onClose (): void {
    const { call, error } = this
    if (call !== null && this.retry(call)) return
    this.leave()
    this.retire()
    call?.onConnectionLost(new ServerGoneError({ cause: error ?? undefined }))
  }

  /** A server may close an idle connection while a request is on its way. Then it has not read that request. */
  private retry (call: Call): boolean {
    if (this.hasReceived || this.uses === 0 || (call.hasSentHead && !call.mayRepeat)) return false
    this.leave()
    this.isUsable = false
    this.buffers.useShared()
    this.socket.destroy()
    call.repeat()
    this.owner.retry({ call, timeouts: this.timeouts })
    return true
  }
}

/** How long the server keeps the connection, by its Keep-Alive field, less the time that a request may be on its way. */
function keepAliveTimeout (field: string | string[] | undefined): number {
  const [, seconds] = /\btimeout=(\d+)/i.exec(String(field)) ?? []
  return seconds === undefined ? Infinity : Math.max(1, Number(seconds) * 1000 - MARGIN)
}
