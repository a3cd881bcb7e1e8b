// A conversation with a live server: bytes in, in pieces that it reads one by one, and every answer out, whenever the
// connection ends.

import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { MemorySocket } from '../../lib/client/memory-socket.ts'
import { NO_BYTES } from '../../lib/transfer/body-reader.ts'
import { bodyReader, receivedFraming } from '../../lib/transfer/framing.ts'
import { ResponseHeadReader } from '../../lib/transfer/head-reader.ts'

/** Sends the pieces; the client's side ends then, if `end`. Resolves with all the answers, once the connection is gone. */
export type Talk = (pieces: Buffer[], end?: boolean) => Promise<Answer[]>

/** Over a port: every piece is read from the kernel by itself. */
export function overTcp (app: FastifyInstance): Talk {
  const accepted = new Map<number, net.Socket>()
  app.server.on('connection', (socket: net.Socket) => {
    const port = socket.remotePort!
    accepted.set(port, socket)
    socket.on('close', () => accepted.delete(port))
  })
  return async (pieces, end) => {
    const client = net.connect({ port: (app.server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true })
    await once(client, 'connect')
    const port = client.localPort!
    while (!accepted.has(port)) await immediate()
    const server = accepted.get(port)!
    let sent = 0
    return converse(client, server, pieces, end, async (piece) => {
      client.write(piece)
      sent += piece.length
      while (server.bytesRead < sent && !server.destroyed) await immediate()
    })
  }
}

/** In memory: every piece is written when the one before has been read. */
export function inMemory (app: FastifyInstance): Talk {
  return async (pieces, end) => {
    const [client, server] = MemorySocket.pair({ address: '127.0.0.1', port: 1 }, { address: '127.0.0.1', port: 2 })
    app.server.emit('connection', Object.assign(server, { server: app.server }))
    const gone = new Promise((resolve) => server.once('close', resolve))
    return converse(client, server, pieces, end, async (piece) => {
      await Promise.race([gone, new Promise((resolve) => client.write(piece, resolve))])
      await immediate()
    })
  }
}

async function converse (client: Duplex, server: Duplex, pieces: Buffer[], end = false, send: (piece: Buffer) => Promise<void>): Promise<Answer[]> {
  const received: Buffer[] = []
  client.on('data', (piece) => received.push(piece))
  let isReset = false
  client.on('error', () => { isReset = true })
  client.on('end', () => client.end())
  const closed = new Promise((resolve) => client.on('close', resolve))
  for (const piece of pieces) {
    // Not into a connection that is gone: the reset that answers would take with it what the server has said.
    if (server.destroyed || client.writableEnded) break
    await send(piece)
  }
  if (end) client.end()
  await closed
  return readAnswers(Buffer.concat(received), isReset)
}

export interface Answer {
  status: number
  /** Interim responses before it. */
  interim: number[]
  content: string
  trailers: Record<string, string>
  /** Whether all of it has come. */
  complete: boolean
}

/** All the answers in what a server has sent; one that its end completes is not complete where that was a reset. */
function readAnswers (bytes: Buffer, isReset: boolean): Answer[] {
  const answers: Answer[] = []
  let interim: number[] = []
  let rest = bytes
  while (rest.length > 0) {
    const headReader = new ResponseHeadReader(65536)
    headReader.read(rest)
    const { head } = headReader
    if (head === null) throw headReader.error ?? new Error('the head of an answer is cut off')
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
