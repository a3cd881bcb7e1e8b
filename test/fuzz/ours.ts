// The plugin's verdict on a message, in two ways: by the pure readers, with the head as Node reads it, which also tells where
// the message ends; and by a live server on a connection. Both must agree.

import Fastify, { type FastifyInstance } from 'fastify'
import duplex from '../../lib/index.ts'
import { bodyReader, framingFields, requestFraming } from '../../lib/transfer/framing.ts'
import { shouldClose } from '../../lib/transfer/connection-field.ts'
import { checkHost } from '../../lib/transfer/host.ts'
import { type Answer, type Talk, inMemory } from '../conformance/talk.ts'
import { grammarReads } from '../support/oracle.ts'
import { type Message, NEXT } from './messages.ts'
import type { Head } from './node.ts'
import { type Verdict, accepted, incomplete, joinFields, refused } from './verdict.ts'

const LIMITS = { maxTrailerSize: 16 * 1024, maxChunkExtensionSize: 16 * 1024 }

type Coded = Error & { code: string }

/** @param verdict Node's verdict, which is also the plugin's if there is no head */
export function readByPlugin (bytes: Buffer, head: Head | null, verdict: Verdict): Verdict {
  if (head === null) return verdict
  try {
    checkHost(head.rawHeaders, head.minorVersion, '/message')
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
    if (!/^FST_ERR_DUPLEX_(HOST|FRAMING|TRANSFER_CODING)$/.test((error as Coded).code)) throw error
    return refused((error as Error).message)
  }
}

/** The verdict of the printed grammar. Null for a message without a chunked body. */
export function readByGrammar (bytes: string, head: Head | null): Verdict | null {
  if (head === null || joinFields(head.rawHeaders)['transfer-encoding']?.toLowerCase() !== 'chunked') return null
  const read = grammarReads(bytes.slice(head.end))
  return read === null ? refused('not a chunked-body') : accepted(read.content, read.trailers, head.end + read.size)
}

export interface LiveServer {
  app: FastifyInstance
  talk: Talk
}

/** Starts a server that answers every request with the content and trailers it has read. */
export async function listenLive (): Promise<LiveServer> {
  const app = Fastify({ forceCloseConnections: true })
  await app.register(duplex, { ...LIMITS, closeGrace: 0 })
  app.all('/message', { duplex: true }, async (_request, { duplex }) => {
    let content = ''
    for await (const chunk of duplex) content += chunk.toString('latin1')
    return { content, trailers: duplex.trailers }
  })
  app.get('/next', async () => 'next')
  await app.ready()
  return { app, talk: inMemory(app) }
}

const HANG_LIMIT = 60_000

/** @returns the problem, or null if the live server agrees with the pure readers */
export async function compareLive ({ talk }: LiveServer, { bytes, cuts }: Message, head: Head | null, ours: Verdict): Promise<string | null> {
  const segments = [0, ...cuts].map((from, i) => Buffer.from(bytes.slice(from, cuts[i]), 'latin1'))
  let timer: NodeJS.Timeout | undefined
  const hanging = new Promise<null>((resolve) => { timer = setTimeout(resolve, HANG_LIMIT, null) })
  const answers = await Promise.race([talk(segments, true), hanging])
  clearTimeout(timer)
  if (answers === null) return 'the server hangs'
  const final = answers[0] as Answer | undefined
  if (ours.outcome !== 'accepted') {
    if (answers.length !== 1 || !final!.complete || final!.status < 400) return `should have refused: ${JSON.stringify(answers)}`
    if (final!.content === '') return ours.reason === 'no Host' ? null : 'refused without a reason'
    const { message, code } = parse(final!) as { message: string, code?: string }
    return code === undefined || message === ours.reason ? null : `refused for another reason: ${message}`
  }
  if (final === undefined || final.status !== 200) return `should have accepted: ${JSON.stringify(answers)}`
  const { content, trailers } = parse(final) as { content: string, trailers: Record<string, string> }
  if (content !== ours.content) return `wrong content: ${JSON.stringify(content)}`
  if (!hasSameFields(trailers, ours.trailers)) return `wrong trailers: ${JSON.stringify(trailers)}`
  const isPersistent = head!.shouldKeepAlive && !shouldClose(head!.minorVersion, joinFields(head!.rawHeaders).connection)
  const rest = bytes.slice(ours.end)
  if (!isPersistent && answers.length !== 1) return `should have closed the connection: ${JSON.stringify(answers)}`
  if (isPersistent && rest === NEXT && answers[1]?.content !== 'next') return `should have answered the next request: ${JSON.stringify(answers)}`
  return null
}

/** Parses an answer, which is JSON in UTF-8. */
function parse ({ content }: Answer): unknown {
  return JSON.parse(Buffer.from(content, 'latin1').toString())
}

export function hasSameFields (one: Record<string, string>, other: Record<string, string>): boolean {
  const names = Object.keys(one)
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name])
}
