// A proxy under test, and upstream servers written by hand: each byte that they get is kept.

import { once } from 'node:events'
import net, { type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { Agent } from '../../lib/client/agent.ts'
import { proxy } from '../../lib/proxy/proxy.ts'
import type { ProxyOptions } from '../../types/proxy.d.ts'
import { endOf } from '../support/ended.ts'
import { type Start } from '../support/http1.ts'
import { type ServeOptions, type Served, serve } from '../support/wire.ts'

/** How a reset looks. Below Node 24, some are taken for an end. */
export const RESETS: readonly string[] = Number(process.versions.node.split('.')[0]) < 24 ? ['ECONNRESET', 'end'] : ['ECONNRESET']

/** One connection to an upstream server, as that server sees it. */
export class Peer {
  readonly socket: Socket
  received = ''
  /** Resolves when the connection is closed on both sides. */
  readonly closed: Promise<void>
  /** Resolves with an error code, or with 'end'. */
  readonly lost: Promise<string>
  /** Resolves when the proxy has ended its side. */
  readonly ended: Promise<void>
  isEnded = false
  private wake = (): void => {}

  constructor (socket: Socket) {
    this.socket = socket
    socket.on('data', (content) => {
      this.received += content.toString('latin1')
      this.wake()
    })
    this.closed = new Promise((resolve) => { socket.on('close', () => resolve()) })
    this.lost = new Promise((resolve) => {
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code!))
      socket.on('end', () => resolve('end'))
    })
    this.ended = endOf(socket, () => {
      this.isEnded = true
      this.wake()
    })
  }

  send (bytes: string): this {
    this.socket.write(bytes, 'latin1')
    return this
  }

  /** Waits for bytes. @returns all up to their end, which are taken */
  async until (bytes: string): Promise<string> {
    let at
    while ((at = this.received.indexOf(bytes)) === -1) {
      if (this.isEnded) throw new Error(`ended before ${JSON.stringify(bytes)}: ${JSON.stringify(this.received)}`)
      await new Promise<void>((resolve) => { this.wake = resolve })
    }
    const taken = this.received.slice(0, at + bytes.length)
    this.received = this.received.slice(at + bytes.length)
    return taken
  }

  /** Waits for a number of bytes. @returns them, and takes them */
  async atLeast (size: number): Promise<string> {
    while (this.received.length < size && !this.isEnded) await new Promise<void>((resolve) => { this.wake = resolve })
    const taken = this.received.slice(0, size)
    this.received = this.received.slice(size)
    return taken
  }

  head (): Promise<string> {
    return this.until('\r\n\r\n')
  }
}

export interface Upstream {
  url: string
  /** The next connection that is accepted. */
  next: () => Promise<Peer>
  /** All connections that were accepted. */
  peers: Peer[]
  /** Open connections. */
  open: () => number
}

/** @param onPeer called for each connection */
export async function upstream (t: Test, onPeer: (peer: Peer) => unknown = () => {}): Promise<Upstream> {
  const peers: Peer[] = []
  const waiting: ((peer: Peer) => void)[] = []
  let taken = 0
  let open = 0
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const peer = new Peer(socket)
    open++
    socket.on('close', () => { open-- })
    peers.push(peer)
    if (waiting.length > 0) {
      taken++
      waiting.shift()!(peer)
    }
    Promise.resolve(onPeer(peer)).catch((error) => socket.destroy(error))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => {
    for (const { socket } of peers) socket.destroy()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    next: async () => peers[taken] !== undefined ? peers[taken++] : new Promise((resolve) => { waiting.push(resolve) }),
    peers,
    open: () => open
  }
}

export interface Proxied extends Served { agent: Agent }

export interface ProxySetup {
  start?: Start
  options?: Partial<ProxyOptions>
  /** Of the app, the plugin. */
  serve?: ServeOptions & { http?: object }
  setup?: (app: FastifyInstance) => unknown
  url?: string
  duplex?: true | object
}

/** Starts an app that passes everything on. */
export async function serveProxy (t: Test, target: ProxyOptions['upstream'], { start, options, serve: serveOptions, setup = () => {}, url = '/*', duplex = true }: ProxySetup = {}): Promise<Proxied> {
  const agent = new Agent()
  const begin: Start = start ?? ((t, setup, { http, ...options } = {}) => serve(t, 'tcp', setup, { ...options, fastify: { http, ...options.fastify } }))
  const served = await begin(t, async (app) => {
    app.addHttpMethod('CONNECT').addHttpMethod('PROPFIND', { hasBody: true })
    await setup(app)
    const handler = proxy({ upstream: target, agent, ...options })
    app.all(url, { duplex } as object, handler)
    app.get('/next', async () => 'next')
  }, serveOptions)
  t.teardown(() => agent.close())
  return { ...served, agent }
}

/** A response of the upstream server. */
export const ok = (content: string, fields = ''): string => `HTTP/1.1 200 OK\r\ncontent-length: ${content.length}\r\n${fields}\r\n${content}`

/** The lines of a head: the start line, and the others in order. */
export function lines (head: string): string[] {
  const [first, ...others] = head.trimEnd().split('\r\n')
  return [first, ...others.sort()]
}
