// How a connection ends: with the rest of the request dropped, with a lingering close, or cut off.

import type { Socket } from 'node:net'
import { closeSoon, resetConnection, startReading } from '../node/socket.ts'

/** Drops the rest of a request after its response, within limits, so that the connection can be kept. */
export class Drain {
  private readonly limit: number
  private dropped = 0
  private timer: NodeJS.Timeout | null = null

  /** @param limit bytes */
  constructor (limit: number) {
    this.limit = limit
  }

  /** @param timeout milliseconds until `onTimeout` is called */
  start (timeout: number, onTimeout: () => void): void {
    this.timer = setTimeout(onTimeout, timeout)
  }

  /** Counts content that was dropped. @returns whether that was too much */
  drop (size: number): boolean {
    this.dropped += size
    return this.dropped > this.limit
  }

  stop (): void {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timer = null
  }
}

/**
 * Closes a connection after a lingering read (RFC 9112 section 9.6). A close with bytes unread would be a reset, by which the
 * client would lose the part of the response that it has not read yet.
 *
 * @param halfClosed whether the client has ended its side, and nothing is left to read
 * @param timeout milliseconds to wait for the client's end
 */
export function lingeringClose (socket: Socket, halfClosed: boolean, timeout: number): void {
  const timer = setTimeout(() => socket.destroy(), timeout)
  socket.on('close', () => clearTimeout(timer))
  if (halfClosed) {
    closeSoon(socket)
    return
  }
  socket.on('end', () => closeSoon(socket))
  socket.on('data', drop)
  startReading(socket)
  socket.end()
}

/**
 * Closes a connection in the middle of a response, so that the client can tell.
 *
 * @param closeDelimited whether the response body ends with the connection: then a FIN would make it look complete
 */
export function cutOff (socket: Socket, closeDelimited: boolean): void {
  if (closeDelimited) resetConnection(socket)
  else socket.destroy()
}

function drop (): void {}
