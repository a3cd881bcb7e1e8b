// Conversations that the server has with itself, for the page: each is one exchange, and each ends by itself.

import { setTimeout as sleep } from 'node:timers/promises'
import { jsonl } from 'fastify-duplex/items'
import { open } from 'fastify-duplex/client'
import type { AgentEvent } from './agent.ts'

export interface Stage {
  /** Of the server, such as `http://127.0.0.1:3000` */
  origin: string
  signal: AbortSignal
  /** Called with what is sent or received. */
  say: (direction: 'up' | 'down', text: string) => void
}

/** Milliseconds between two words or rows. */
const PACE = 400

const WORDS = 'Each word comes back before the next one is sent'.split(' ')
const ROWS = [{ name: 'apples', amount: 3 }, { name: 'pears', amount: 5 }, { name: 'no amount' }, { name: 'plums', amount: 8 }, { name: 'figs', amount: 13 }]
const WEATHER: Record<string, string> = { Rome: 'sunny', Oslo: 'snow' }

async function echo ({ origin, signal, say }: Stage): Promise<void> {
  const call = open(`${origin}/echo`, { method: 'POST', headers: { 'content-type': 'text/plain; charset=utf-8' }, signal }).setEncoding('utf8')
  await both(async () => {
    for (const word of WORDS) {
      say('up', word)
      call.write(word)
      await sleep(PACE, undefined, { signal })
    }
    call.end()
  }, async () => {
    for await (const chunk of call) say('down', chunk)
  })
}

async function rows ({ origin, signal, say }: Stage): Promise<void> {
  const call = open(`${origin}/import`, { send: jsonl({}), receive: jsonl({}), signal })
  await both(async () => {
    for (const row of ROWS) {
      say('up', JSON.stringify(row))
      call.send(row)
      await sleep(PACE, undefined, { signal })
    }
    call.end()
  }, async () => {
    for await (const result of call.items) say('down', JSON.stringify(result))
    say('down', `trailers: ${JSON.stringify(call.trailers)}`)
  })
}

async function agent ({ origin, signal, say }: Stage): Promise<void> {
  const call = open(`${origin}/agent`, { send: jsonl({}), receive: jsonl({}), signal })
  const send = (message: object): void => {
    say('up', JSON.stringify(message))
    call.send(message)
  }
  send({ type: 'prompt', text: 'How is the weather in Rome, and in Oslo?' })
  for await (const item of call.items) {
    const event = item as AgentEvent
    say('down', JSON.stringify(event))
    if (event.type === 'done') call.end()
    if (event.type !== 'tool_call') continue
    await sleep(PACE, undefined, { signal }) // the tool takes its time
    send({ type: 'tool_result', id: event.id, output: WEATHER[event.city] })
  }
}

/** If one direction fails, the call has failed, and so does the other. */
async function both (up: () => Promise<void>, down: () => Promise<void>): Promise<void> {
  await Promise.all([up(), down()])
}

export const CONVERSATIONS = { echo, import: rows, agent } satisfies Record<string, (stage: Stage) => Promise<void>>

export type Name = keyof typeof CONVERSATIONS
