// A conversation with an agent that calls tools. Prompts and the results of tools come up as JSON Lines. Tokens and calls of tools
// go down as JSON Lines or as server-sent events, as the client's Accept field says. The whole conversation is one exchange. When
// the client leaves, the model stops at once. The model is simulated, so that the example needs no network. `npm run example:agent`

import { setTimeout as sleep } from 'node:timers/promises'
import { type Static, Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { jsonl, problemSchema, sse } from 'fastify-duplex/items'
import { listen } from './listen.ts'

const messageSchema = Type.Union([
  Type.Object({ type: Type.Literal('prompt'), text: Type.String({ minLength: 1 }) }),
  Type.Object({ type: Type.Literal('tool_result'), id: Type.String(), output: Type.String() })
])
const eventSchema = Type.Union([
  Type.Object({ type: Type.Literal('token'), text: Type.String() }),
  Type.Object({ type: Type.Literal('tool_call'), id: Type.String(), name: Type.Literal('weather'), city: Type.String() }),
  Type.Object({ type: Type.Literal('done') }),
  Type.Unsafe<never>(problemSchema) // sent as the last item if a message is bad
])

export type Message = Static<typeof messageSchema>
export type AgentEvent = Static<typeof eventSchema>

/** A run of the model, when it is over. */
export interface Run { tokens: number, outcome: 'complete' | 'cancelled' }

export interface AgentOptions {
  /** Called at the end of each run of the model. */
  record: (run: Run) => void
  /** Milliseconds for a token. */
  pace?: number
}

export async function agent (app: FastifyInstance, { record, pace = 100 }: AgentOptions): Promise<void> {
  app.withTypeProvider<TypeBoxTypeProvider>().route({
    method: ['POST', 'PUT'], // `curl -T` sends PUT
    url: '/agent',
    duplex: {
      bodyLimit: 1024 ** 2, // the whole conversation
      receive: jsonl(messageSchema, { maxItemSize: 64 * 1024 }),
      send: [jsonl(eventSchema, { heartbeat: 15_000 }), sse(eventSchema, { heartbeat: 15_000 })]
    },
    handler: async function * (request, reply) {
      const turn: (Message | AgentEvent)[] = []
      for await (const message of reply.duplex.items) {
        if (message.type === 'prompt') turn.length = 0
        turn.push(message)
        const run: Run = { tokens: 0, outcome: 'cancelled' }
        try {
          for await (const event of model(turn, pace, request.signal)) {
            turn.push(event)
            if (event.type === 'token') run.tokens++
            yield event
          }
          run.outcome = 'complete'
        } finally {
          // When the client leaves, the signal stops the model, or this generator returns from the `yield` where it waits.
          record(run)
        }
      }
    }
  })
}

const CITIES = /\b(Lima|Oslo|Rome)\b/g

/**
 * Stands for a model. It asks a tool for the weather in each city of the prompt, and answers when it has all results. If the prompt
 * names no city, the answer is the prompt. A real one would be a `fetch(url, { signal })`.
 *
 * @param turn the prompt, and what has followed it
 */
async function * model (turn: readonly (Message | AgentEvent)[], pace: number, signal: AbortSignal): AsyncGenerator<AgentEvent> {
  const prompt = turn.find((item) => item.type === 'prompt')?.text ?? ''
  const calls = turn.filter((item) => item.type === 'tool_call')
  const cities = new Set(prompt.match(CITIES))
  if (calls.length < cities.size) {
    for (const city of cities) yield { type: 'tool_call', id: `call_${city}`, name: 'weather', city }
    return
  }
  const outputs = new Map(turn.filter((item) => item.type === 'tool_result').map(({ id, output }) => [id, output]))
  if (!calls.every(({ id }) => outputs.has(id))) return
  const answer = calls.length === 0 ? prompt : calls.map(({ id, city }) => `${city}: ${outputs.get(id)}.`).join(' ')
  for (const word of answer.split(' ')) {
    await sleep(pace, undefined, { signal })
    yield { type: 'token', text: `${word} ` }
  }
  yield { type: 'done' }
}

async function main (): Promise<void> {
  const address = await listen((app) => app.register(agent, {
    record: ({ tokens, outcome }: Run) => console.log(`A run of the model: ${outcome}, ${tokens} tokens`)
  }))
  const curl = 'curl -sN -T . -H content-type:application/jsonl'
  console.log(`A tool is called, and its result is used. For JSON Lines, leave out the Accept field:

  (echo '{"type":"prompt","text":"Rome, now?"}'; sleep 1; echo '{"type":"tool_result","id":"call_Rome","output":"sunny"}') |
    ${curl} -H accept:text/event-stream ${address}/agent

The model stops when you leave with Ctrl-C:

  (echo '{"type":"prompt","text":"'$(seq -s' ' 100)'"}'; sleep 60) | ${curl} ${address}/agent

`)
}

if (require.main === module) main()
