// A server whose part the test plays by hand: it reads requests as text, and sends what bytes it likes.

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { setImmediate as immediate } from 'node:timers/promises'
import tls from 'node:tls'
import type { Test } from 'tap'
import * as client from '../../lib/client/index.ts'
import type * as types from '../../types/client.d.ts'
import type { AgentOptions, ClientCall, OpenOptions } from '../../types/client.d.ts'
import { endOf } from '../support/ended.ts'
import { TLS, type Transport, socketPath } from '../support/wire.ts'

/** What the package exports, with its public types. */
export const { Agent, open } = client as unknown as typeof types

/** The server's end of a connection. */
export class Peer {
  readonly socket: net.Socket
  /** What has been received, and was not taken yet. */
  received = ''
  /** Resolves with the code of the error, if there was one, when the connection has closed. */
  readonly closed: Promise<string | null>
  /** Resolves when the client has ended its side, or the connection has closed. */
  readonly ended: Promise<void>
  private wake = (): void => {}
  private isEnded = false

  constructor (socket: net.Socket) {
    this.socket = socket
    let code: string | null = null
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1')
      this.wake()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => { code = error.code! })
    this.ended = endOf(socket, () => {
      this.isEnded = true
      this.wake()
    })
    this.closed = new Promise((resolve) => socket.on('close', () => resolve(code)))
  }

  /** Takes what has been received up to `end`. */
  async until (end: string): Promise<string> {
    let index
    while ((index = this.received.indexOf(end)) === -1) {
      if (this.isEnded) throw new Error(`the client has ended its side behind ${JSON.stringify(this.received)}`)
      await new Promise<void>((resolve) => { this.wake = resolve })
    }
    const taken = this.received.slice(0, index + end.length)
    this.received = this.received.slice(taken.length)
    return taken
  }

  /** Takes the head of a request. */
  head (): Promise<string> {
    return this.until('\r\n\r\n')
  }

  send (bytes: string): this {
    this.socket.write(bytes, 'latin1')
    return this
  }

  /** Takes a request without a body, and answers it. */
  async answer (bytes: string): Promise<string> {
    const head = await this.head()
    this.send(bytes)
    return head
  }
}

export interface Played {
  url: string
  port: number
  /** The connections that were made, in turn. */
  peers: Peer[]
  /** The next connection. */
  accept: () => Promise<Peer>
  /** The server's end of the connection of a call. Not over Unix sockets. */
  peerOf: (call: ClientCall) => Promise<Peer>
  /** Opens a call, with an agent of this server. */
  open: (options?: OpenOptions<undefined, undefined> & { at?: string }) => ClientCall
  agent: types.Agent
  /** Connections that are open at the server. */
  count: () => number
}

/** Starts such a server. It ends with the test, and so does every connection. */
export async function play (t: Test, { transport = 'tcp', agent: options, server: serverOptions }: { transport?: Transport, agent?: AgentOptions, server?: object } = {}): Promise<Played> {
  const waiting: ((peer: Peer) => void)[] = []
  const unaccepted: Peer[] = []
  const peers: Peer[] = []
  const sockets = new Set<net.Socket>()
  const onSocket = (socket: net.Socket): void => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    const peer = new Peer(socket)
    peers.push(peer)
    const resolve = waiting.shift()
    if (resolve === undefined) unaccepted.push(peer)
    else resolve(peer)
  }
  const server = transport === 'tls' ? tls.createServer({ ...TLS, allowHalfOpen: true, ...serverOptions }, onSocket) : net.createServer({ allowHalfOpen: true, ...serverOptions }, onSocket)
  server.on('tlsClientError', () => {})
  const path = socketPath()
  server.listen(transport === 'unix' ? path : { port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  const port = transport === 'unix' ? 0 : (server.address() as AddressInfo).port
  const url = { tcp: `http://127.0.0.1:${port}`, tls: `https://127.0.0.1:${port}`, unix: `unix:${path}:` }[transport]
  const agent = new Agent({ ...(transport === 'tls' ? { tls: { ca: TLS.cert } } : {}), ...options })
  t.teardown(() => {
    agent.close()
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return {
    url,
    port,
    peers,
    agent,
    accept: async () => unaccepted.shift() ?? new Promise<Peer>((resolve) => waiting.push(resolve)),
    peerOf: async (call) => {
      await until(() => call.socket !== null)
      const port = call.socket!.localPort
      let peer: Peer | undefined
      // A port may have been used before.
      await until(() => (peer = peers.find(({ socket }) => socket.remotePort === port && !socket.destroyed)) !== undefined)
      return peer!
    },
    open: ({ at = '/', ...options } = {}) => open(url + at, { agent, ...options }),
    count: () => sockets.size
  }
}

export const head = (status: string, ...lines: string[]): string => [`HTTP/1.1 ${status}`, ...lines, '', ''].join('\r\n')
export const OK = (...lines: string[]): string => head('200 OK', ...lines)
export const BODY = (body: string, ...lines: string[]): string => OK(...lines, `Content-Length: ${body.length}`) + body

export interface Outcome {
  statuses: number[]
  content: string
  trailers: Record<string, string>
  code: string | null
}

/** How a call ends: what of the response has come, and the code of the error. */
export async function outcomeOf (call: ClientCall): Promise<Outcome> {
  const statuses: number[] = []
  call.on('information', ({ statusCode }) => statuses.push(statusCode))
  call.on('response', ({ statusCode }) => statuses.push(statusCode))
  let content = ''
  const code = await new Promise<string | null>((resolve) => {
    call.on('data', (chunk) => { content += chunk.toString('latin1') })
    call.on('end', () => resolve(null))
    call.on('error', (error: NodeJS.ErrnoException) => resolve(error.code!))
  })
  return { statuses, content, trailers: { ...call.trailers }, code }
}

/** The code of the error that a call ends with, and its promise, too. */
export async function failureOf (call: ClientCall): Promise<string> {
  const [byPromise, byEvent] = await Promise.all([
    call.response.then(() => 'a response', (error: { code: string }) => error.code),
    once(call, 'error').then(([error]) => error.code, (error) => error.code)
  ])
  return byPromise === byEvent ? byEvent : `${byPromise} and ${byEvent}`
}

/** The response, whole. */
export async function whole (call: ClientCall): Promise<{ statusCode: number, body: string }> {
  const { statusCode } = await call.response
  return { statusCode, body: await text(call) }
}

/** Waits for something that has no event. */
export async function until (isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`never true: ${isTrue}`)
    await immediate()
  }
}

/** Waits until a call is closed, however it has ended. */
export async function closed (call: ClientCall): Promise<void> {
  if (!call.closed) await new Promise((resolve) => call.once('close', resolve))
}
