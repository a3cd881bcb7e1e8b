// What we make of a message: with the head as Node reads it and our own readers, which tells where it ends; and on a live
// connection of a server with the plugin, which must come to the same.

import Fastify, { type FastifyInstance } from 'fastify'
import duplex from '../../lib/index.ts'
import { bodyReader, framingFields, requestFraming } from '../../lib/transfer/framing.ts'
import { asksToClose } from '../../lib/transfer/head-writer.ts'
import { type Answer, type Talk, inMemory } from '../conformance/talk.ts'
import { grammarReads } from '../support/oracle.ts'
import { type Message, NEXT } from './messages.ts'
import type { Head } from './node.ts'
import { type Verdict, accepted, incomplete, joined, refused } from './verdict.ts'

const LIMITS = { maxTrailerSize: 16 * 1024, maxChunkExtensionSize: 16 * 1024 }

type Coded = Error & { code: string }

/** @param verdict of Node, which is ours where it finds no head */
export function weRead (bytes: Buffer, head: Head | null, verdict: Verdict): Verdict {
  if (head === null) return verdict
  try {
    const reader = bodyReader(requestFraming(framingFields(head.rawHeaders), head.minorVersion), LIMITS)
    // The reader decodes in place.
    const body = Buffer.from(bytes.subarray(head.end))
    const content = reader.done ? '' : reader.read(body).toString('latin1')
    if (reader.error !== null) return refused(reader.error.message)
    if (!reader.done) {
      reader.end()
      return incomplete(reader.error!.message)
    }
    return accepted(content, reader.trailers, head.end + reader.consumed)
  } catch (error) {
    if (!/^FST_ERR_DUPLEX_(FRAMING|TRANSFER_CODING)$/.test((error as Coded).code)) throw error
    return refused((error as Error).message)
  }
}

/** What the printed grammar makes of a message with a chunked body, if it is one. */
export function theGrammarReads (bytes: string, head: Head | null): Verdict | null {
  if (head === null || joined(head.rawHeaders)['transfer-encoding']?.toLowerCase() !== 'chunked') return null
  const read = grammarReads(bytes.slice(head.end))
  return read === null ? refused('no chunked-body') : accepted(read.content, read.trailers, head.end + read.size)
}

export interface LiveServer {
  app: FastifyInstance
  talk: Talk
}

/** A server that answers every request with what it has read. */
export async function listenLive (): Promise<LiveServer> {
  const app = Fastify({ forceCloseConnections: true })
  await app.register(duplex, { ...LIMITS, closeGrace: 0 })
  app.all('/message', { duplex: true }, async (_request, { duplex }) => {
    let content = ''
    for await (const piece of duplex) content += piece.toString('latin1')
    return { content, trailers: duplex.trailers }
  })
  app.get('/next', async () => 'next')
  await app.ready()
  return { app, talk: inMemory(app) }
}

const A_MINUTE = 60_000

/** @returns what is wrong, in words; null when the live server does as our readers do */
export async function compareLive ({ talk }: LiveServer, { bytes, cuts }: Message, head: Head | null, ours: Verdict): Promise<string | null> {
  const pieces = [0, ...cuts].map((from, i) => Buffer.from(bytes.slice(from, cuts[i]), 'latin1'))
  let timer: NodeJS.Timeout | undefined
  const hang = new Promise<null>((resolve) => { timer = setTimeout(resolve, A_MINUTE, null) })
  const answers = await Promise.race([talk(pieces, true), hang])
  clearTimeout(timer)
  if (answers === null) return 'hangs'
  const final = answers[0] as Answer | undefined
  if (ours.outcome !== 'accepted') {
    if (answers.length !== 1 || !final!.complete || final!.status < 400) return `must be refused: ${JSON.stringify(answers)}`
    if (final!.content === '') return ours.reason === 'no Host' ? null : 'refused without a reason'
    const { message, code } = parse(final!) as { message: string, code?: string }
    return code === undefined || message === ours.reason ? null : `refused for another reason: ${message}`
  }
  if (final === undefined || final.status !== 200) return `must be accepted: ${JSON.stringify(answers)}`
  const { content, trailers } = parse(final) as { content: string, trailers: Record<string, string> }
  if (content !== ours.content) return `other content: ${JSON.stringify(content)}`
  if (!isSame(trailers, ours.trailers)) return `other trailers: ${JSON.stringify(trailers)}`
  const persistent = head!.shouldKeepAlive && !asksToClose(joined(head!.rawHeaders).connection)
  const rest = bytes.slice(ours.end)
  if (!persistent && answers.length !== 1) return `must close: ${JSON.stringify(answers)}`
  if (persistent && rest === NEXT && answers[1]?.content !== 'next') return `the next request must be answered: ${JSON.stringify(answers)}`
  return null
}

/** Answers are JSON, in UTF-8. */
function parse ({ content }: Answer): unknown {
  return JSON.parse(Buffer.from(content, 'latin1').toString())
}

export function isSame (some: Record<string, string>, others: Record<string, string>): boolean {
  const names = Object.keys(some)
  return names.length === Object.keys(others).length && names.every((name) => some[name] === others[name])
}
