// A hostile HTTP/2 client: one session with many streams.

import { once } from 'node:events'
import http2 from 'node:http2'
import net from 'node:net'
import type { HostileClient, WayToLeave } from './connection.ts'
import type { Address } from './messages.ts'

export class Session implements HostileClient {
  private readonly session: http2.ClientHttp2Session
  private readonly socket: net.Socket
  private readonly streams: http2.ClientHttp2Stream[] = []
  private bytes = 0

  private constructor (session: http2.ClientHttp2Session, socket: net.Socket) {
    this.session = session
    this.socket = socket
    session.on('error', () => {})
  }

  static async open (address: Address): Promise<Session> {
    const socket = net.connect(address as net.NetConnectOpts)
    const session = http2.connect('http://127.0.0.1', { createConnection: () => socket })
    await once(session, 'connect')
    return new Session(session, socket)
  }

  get progress (): number {
    return this.bytes + this.streams.reduce((sum, { bufferSize, destroyed }) => sum + (destroyed ? 0 : bufferSize), 0)
  }

  /** Opens a stream, and sends one byte of content. */
  request (path: string, reads: boolean): http2.ClientHttp2Stream {
    const stream = this.session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/octet-stream' }, { endStream: false })
    this.streams.push(stream)
    stream.on('error', () => {})
    if (reads) stream.on('data', (chunk: Buffer) => { this.bytes += chunk.length })
    stream.write('x')
    return stream
  }

  async leave (how: WayToLeave): Promise<void> {
    const { session, streams } = this
    if (session.destroyed) return
    const closed = once(session, 'close').catch(() => {})
    if (how === 'end') for (const stream of streams) stream.close(http2.constants.NGHTTP2_CANCEL)
    if (how === 'reset') this.socket.resetAndDestroy()
    session.destroy()
    await closed
  }
}
