// Sends bytes to a live server, in segments that it reads one by one. Returns all answers when the connection has closed.

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { MemorySocket } from '../../lib/client/memory-socket.ts'
import { NO_BYTES } from '../../lib/transfer/body-reader.ts'
import { bodyReader, receivedFraming } from '../../lib/transfer/framing.ts'
import { ResponseHeadReader } from '../../lib/transfer/head-reader.ts'

/** Sends the segments, and then ends the client's side if `end` is set. Resolves with all answers when the connection has closed. */
export type Talk = (segments: Buffer[], end?: boolean) => Promise<Answer[]>

/** Over TCP. A segment is sent when the server has read the one before it. */
export function overTcp (app: FastifyInstance): Talk {
  const accepted = new Map<number, net.Socket>()
  app.server.on('connection', (socket: net.Socket) => {
    const port = socket.remotePort!
    accepted.set(port, socket)
    socket.on('close', () => accepted.delete(port))
  })
  return async (segments, end) => {
    const client = net.connect({ port: (app.server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true })
    await once(client, 'connect')
    const port = client.localPort!
    while (!accepted.has(port)) await immediate()
    const server = accepted.get(port)!
    let sent = 0
    return converse(client, server, segments, end, async (segment) => {
      client.write(segment)
      sent += segment.length
      while (server.bytesRead < sent && !server.destroyed) await immediate()
    })
  }
}

/** Over a connection in memory. A segment is written when the server has read the one before it. */
export function inMemory (app: FastifyInstance): Talk {
  return async (segments, end) => {
    const [client, server] = MemorySocket.pair({ address: '127.0.0.1', port: 1 }, { address: '127.0.0.1', port: 2 })
    app.server.emit('connection', Object.assign(server, { server: app.server }))
    const closed = new Promise((resolve) => server.once('close', resolve))
    return converse(client, server, segments, end, async (segment) => {
      await Promise.race([closed, new Promise((resolve) => client.write(segment, resolve))])
      await immediate()
    })
  }
}

async function converse (client: Duplex, server: Duplex, segments: Buffer[], end = false, send: (segment: Buffer) => Promise<void>): Promise<Answer[]> {
  const received: Buffer[] = []
  client.on('data', (chunk) => received.push(chunk))
  let isReset = false
  client.on('error', () => { isReset = true })
  client.on('end', () => client.end())
  const closed = new Promise((resolve) => client.on('close', resolve))
  for (const segment of segments) {
    // Writing to a connection that the server has closed causes a reset, which would discard the answers on their way.
    if (server.destroyed || client.writableEnded) break
    await send(segment)
  }
  if (end) client.end()
  await closed
  return readAnswers(Buffer.concat(received), isReset)
}

export interface Answer {
  status: number
  /** Status codes of the interim responses before it. */
  interim: number[]
  content: string
  trailers: Record<string, string>
  /** All of the answer has arrived. */
  complete: boolean
}

/** Reads all answers. If the connection was reset, an answer that would end with the connection is incomplete. */
function readAnswers (bytes: Buffer, isReset: boolean): Answer[] {
  const answers: Answer[] = []
  let interim: number[] = []
  let rest = bytes
  while (rest.length > 0) {
    const headReader = new ResponseHeadReader(65536)
    headReader.read(rest)
    const { head } = headReader
    if (head === null) throw headReader.error ?? new Error('the head of an answer is incomplete')
    rest = rest.subarray(headReader.consumed)
    if (head.statusCode < 200) {
      interim.push(head.statusCode)
      continue
    }
    const reader = bodyReader(receivedFraming('GET', head.statusCode, head.fields, head.minorVersion), { maxTrailerSize: 65536, maxChunkExtensionSize: 0 })
    let content = NO_BYTES
    if (!reader.done) content = reader.read(rest)
    rest = rest.subarray(reader.consumed)
    if (!isReset) reader.end()
    answers.push({ status: head.statusCode, interim, content: content.toString('latin1'), trailers: { ...reader.trailers }, complete: reader.done })
    interim = []
  }
  return answers
}
