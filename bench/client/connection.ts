// One connection of the client: a bare socket that reads into one buffer for all, since what was read is used at once.

import { type Socket, connect } from 'node:net'
import type { Protocol, Session, Sink } from './session.ts'

const READ_BUFFER = Buffer.allocUnsafeSlow(256 * 1024)

export interface Target {
  port: number
  protocol: Protocol
}

export class Connection {
  readonly socket: Socket
  readonly session: Session

  /** @param onClose gets the error, or null when the server just closed; not called after `destroy` */
  constructor ({ port, protocol }: Target, sink: Sink, onClose: (error: Error | null) => void, onRoom: () => void = ignore) {
    let failure: Error | null = null
    this.session = protocol.session(sink, (bytes) => { this.socket.write(bytes) }, onRoom)
    this.socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: READ_BUFFER,
        callback: (length) => {
          try {
            this.session.read(READ_BUFFER, length)
          } catch (error) {
            this.socket.destroy(error as Error)
          }
          return true
        }
      }
    })
    this.socket.on('error', (error) => { failure = error })
    this.socket.on('close', () => { if (!this.destroyed) onClose(failure) })
  }

  private destroyed = false

  /** The client is done with it. */
  destroy (): void {
    this.destroyed = true
    this.socket.destroy()
  }
}

function ignore (): void {}
