// Content that goes from one exchange into another, and exchanges for a test to handle.

import { createCipheriv, createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import { queuedBytes } from '../../lib/node/socket.ts'
import { ReadBuffers } from '../../lib/relay/read-buffers.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { collectGarbage } from '../support/garbage.ts'
import { OPEN, type Transport, type Wire, serve } from '../support/wire.ts'

export const MIB = 1024 ** 2

/** The same bytes for the same seed, different ones for different seeds. */
export function content (seed: number, size: number): Buffer {
  const key = Buffer.alloc(16, seed)
  return createCipheriv('aes-128-ctr', key, key).update(Buffer.alloc(size))
}

/** In chunks of 1 byte to 192 KiB. */
export function chunks (bytes: Buffer): Buffer {
  const parts: Buffer[] = []
  for (let at = 0, size; at < bytes.length; at += size) {
    size = Math.min(bytes.length - at, 1 + (at * 7919 + bytes[at] * 257) % (bytes[at] % 3 === 0 ? 192 * 1024 : 300))
    parts.push(Buffer.from(size.toString(16) + '\r\n'), bytes.subarray(at, at + size), Buffer.from('\r\n'))
  }
  return Buffer.concat(parts)
}

export const END = '0\r\n\r\n'

export function memory (): number {
  collectGarbage()
  return process.memoryUsage().arrayBuffers
}

/** Bytes that these clients still have to send. */
export function queued (...wires: Wire[]): number {
  return wires.reduce((sum, { socket }) => sum + queuedBytes(socket), 0)
}

/** The hash of so many bytes of a body. */
export async function hashOf (wire: Wire, size: number): Promise<string> {
  const sum = createHash('sha256')
  for (let received = 0; received < size;) {
    const chunk = await wire.content()
    if (chunk === '') throw new Error(`the body has ended after ${received} bytes`)
    received += chunk.length
    sum.update(chunk, 'latin1')
  }
  return sum.digest('hex')
}

export function upgrade (reply: FastifyReply): void {
  reply.code(101).headers({ connection: 'upgrade', upgrade: 'echo' })
}

export function echo (app: FastifyInstance): void {
  app.post('/', { duplex: true }, async (request, reply) => {
    const { 'content-length': length } = request.headers
    if (length !== undefined) reply.header('content-length', length)
    await pipeline(reply.duplex, reply.duplex)
  })
  app.get('/', { duplex: true }, async (request, reply) => {
    if (request.headers.upgrade === undefined) return 'next'
    upgrade(reply)
    await pipeline(reply.duplex, reply.duplex)
  })
}

export const UPGRADE = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n`

export const FRAMINGS = {
  chunked: (bytes: Buffer) => Buffer.concat([Buffer.from(OPEN('/')), chunks(bytes), Buffer.from(END)]),
  length: (bytes: Buffer) => Buffer.concat([Buffer.from(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes.length}\r\n\r\n`), bytes]),
  tunnel: (bytes: Buffer) => Buffer.concat([Buffer.from(UPGRADE('/')), bytes])
}

export interface Opened {
  wire: Wire
  duplex: HttpDuplex
}

export interface Handled {
  open: (path: string) => Promise<Opened>
  /** With the head of the response read. */
  openTunnel: (path: string) => Promise<Opened>
}

/** An app whose exchanges are for the test to handle: each is emitted, by its path. */
export async function handled (t: Test, transport: Transport): Promise<Handled> {
  const opened = new EventEmitter()
  const handle = async (request: FastifyRequest, { duplex }: FastifyReply): Promise<void> => {
    opened.emit(request.url, duplex)
    await once(duplex, 'close')
  }
  const { connect } = await serve(t, transport, (app) => {
    app.post('/:name', { duplex: { highWaterMark: 16 * 1024 } }, handle)
    app.get('/:name', { duplex: true }, async (request, reply) => {
      upgrade(reply)
      reply.duplex.flushHeaders()
      await handle(request, reply)
    })
  })
  const send = async (head: string, path: string): Promise<Opened> => {
    const wire = await connect()
    wire.send(head)
    const [duplex] = await once(opened, path)
    return { wire, duplex }
  }
  return {
    open: (path) => send(OPEN(path), path),
    async openTunnel (path) {
      const tunnel = await send(UPGRADE(path), path)
      await tunnel.wire.head()
      return tunnel
    }
  }
}

export const IN_PLACE = { skip: process.platform === 'win32' && 'the read buffers are not used on Windows' }

/** Whether content can be relayed without a copy: not what TLS has decrypted. */
export function relaysOver (transport: Transport): boolean {
  return transport !== 'tls' && process.platform !== 'win32'
}

/** Counts the reads whose bytes another connection writes from where they are, since it was last asked. */
export function countRelayed (t: Test): () => number {
  const { requestPrivate, retirePrivate } = ReadBuffers.prototype
  t.teardown(() => { Object.assign(ReadBuffers.prototype, { requestPrivate, retirePrivate }) })
  let count = 0
  ReadBuffers.prototype.requestPrivate = function () {
    const own = requestPrivate.call(this)
    if (own !== null) count++
    return own
  }
  ReadBuffers.prototype.retirePrivate = function (own) {
    count--
    retirePrivate.call(this, own)
  }
  return () => {
    const counted = count
    count = 0
    return counted
  }
}
